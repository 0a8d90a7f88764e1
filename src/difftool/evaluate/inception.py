"""Inception as torch-fidelity runs it, if the user has its weights; nothing is downloaded."""

from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from difftool.errors import ArtefactError, MissingDependencyError
from difftool.evaluate.views import Pixels, View
from difftool.files import file_sha256

INCEPTION: Final = "inception"  # the name of the extractor
WEIGHTS: Final = "weights-inception-2015-12-05-6726825d.pth"
_NETWORK: Final = "inception-v3-compat"
_LAYER: Final = "2048"  # the features of FID (Heusel et al. 2017)
_BATCH: Final = 64
_GET: Final = f"get {WEIGHTS} as docs/evaluation.md says; difftool downloads nothing"


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
        raise ArtefactError(f"no weights at {weights}", _GET)
    try:
        # torch-fidelity unpickles this file without a check, so it is read with a check first.
        torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is not a checkpoint may raise anything
        raise ArtefactError(f"{weights} is not plain weights", f"do not use it; {_GET}") from error


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
        feature_extractor=_NETWORK,
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


class InceptionExtractor:
    """The features that FID compares, 2048 of them, without classes; see `Extractor`.

    `weights` are by default looked for where PyTorch keeps downloaded ones. torch-fidelity scales
    images of any size by itself. Raises what `check_weights` does.
    """

    name = preprocess = INCEPTION

    def __init__(self, weights: Path | None = None) -> None:
        self._weights = weights or _cached()
        check_weights(self._weights)
        self.sha256 = file_sha256(self._weights)
        self._network: Any = None

    def demand(self, shape: tuple[int, ...]) -> None:
        """Build the network; it takes images of any shape [C, H, W] with 1 or 3 channels."""
        if self._network is not None:
            return
        import torch

        network = _inception()(
            _NETWORK, [_LAYER], feature_extractor_weights_path=str(self._weights)
        )
        self._network = network.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    def view(self, pixels: Pixels) -> View:
        """Run the network on pixels uint8 [N, H, W, C]; see `Extractor`."""
        import torch

        self.demand(pixels.shape[1:])
        device = "cuda" if torch.cuda.is_available() else "cpu"
        tensor: Any = torch.from_numpy(_colour(pixels))
        with torch.inference_mode():
            found = [
                self._network(part.to(device))[0].double().cpu().numpy()
                for part in tensor.split(_BATCH)
            ]
        return View(np.concatenate(found), None)


def _cached() -> Path:
    """Return the file to which torch-fidelity would download the weights; it may be missing."""
    _torch_fidelity()
    from torch.hub import get_dir

    return Path(get_dir()) / "checkpoints" / WEIGHTS


def _inception() -> Any:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    return FeatureExtractorInceptionV3


def _dataset(pixels: Pixels) -> Any:
    """Make a data set of uint8 tensors [3, H, W]."""
    import torch
    from torch.utils.data import Subset

    tensor: Any = torch.from_numpy(_colour(pixels))
    return Subset(tensor, range(len(tensor)))


def _colour(pixels: Pixels) -> Pixels:
    """Return pixels uint8 [N, 3, H, W]; grey ones are repeated."""
    colour = np.broadcast_to(pixels, (*pixels.shape[:3], 3)).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(colour)


def _torch_fidelity() -> Any:
    try:
        import torch_fidelity
    except ImportError as error:  # torch-fidelity, or torchvision, which it imports
        raise MissingDependencyError.extra("torch-fidelity", "eval") from error
    return torch_fidelity
