"""Compute FID and Inception Score with torch-fidelity, if the user has Inception's weights."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from difftool.errors import ArtefactError, MissingDependencyError
from difftool.evaluate.extractor import Pixels


class InceptionFigures(NamedTuple):
    """FID (Heusel et al. 2017), and Inception Score (Salimans et al. 2016) over 10 splits."""

    fid: float
    inception_score: float
    inception_score_std: float


def check_weights(weights: Path) -> None:
    """Check, before any work, that `inception_figures` can use the weights.

    Raises:
        MissingDependencyError: torch-fidelity is not installed.
        ArtefactError: the weights are missing, or more than plain weights.
    """
    _torch_fidelity()
    import torch

    if not weights.is_file():
        raise ArtefactError(f"no weights at {weights}", "see docs/evaluation.md for the file")
    try:
        # torch-fidelity unpickles this file without a check, so it is read with a check first.
        torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is not a checkpoint may raise anything
        raise ArtefactError(
            f"{weights} is not plain weights", "do not use it; see docs/evaluation.md for the file"
        ) from error


def inception_figures(samples: Pixels, data: Pixels, weights: Path) -> InceptionFigures:
    """Return the figures of samples against data, both uint8 [N, H, W, C] with 1 or 3 channels.

    `weights` is torch-fidelity's own file, `weights-inception-2015-12-05-6726825d.pth`; nothing is
    downloaded. Grey images become colour images. Raises what `check_weights` does.
    """
    check_weights(weights)
    import torch

    found = _torch_fidelity().calculate_metrics(
        input1=_dataset(samples),
        input2=_dataset(data),
        fid=True,
        isc=True,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights),
        cuda=torch.cuda.is_available(),
        save_cpu_ram=True,  # work in this process, without others
        cache=False,
        verbose=False,
    )
    return InceptionFigures(
        fid=float(found["frechet_inception_distance"]),
        inception_score=float(found["inception_score_mean"]),
        inception_score_std=float(found["inception_score_std"]),
    )


def _dataset(pixels: Pixels) -> Any:
    """Make a data set of uint8 tensors [3, H, W]."""
    import torch
    from torch.utils.data import Subset

    colour = np.broadcast_to(pixels, (*pixels.shape[:3], 3)).transpose(0, 3, 1, 2)
    tensor: Any = torch.from_numpy(np.ascontiguousarray(colour))
    return Subset(tensor, range(len(tensor)))


def _torch_fidelity() -> Any:
    try:
        import torch_fidelity
    except ImportError as error:  # torch-fidelity, or torchvision, which it imports
        raise MissingDependencyError.extra("torch-fidelity", "eval") from error
    return torch_fidelity
