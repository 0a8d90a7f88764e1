"""Write a trained classifier as an extractor, one ONNX file that `difftool.evaluate` reads."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.export import Dim

from difftool.export.lowerings import Lowerings
from difftool.export.onnx import export_module
from difftool.files import write_atomic

# As `difftool.evaluate` reads them; that room is above this one.
_OUTPUTS: Final = ("features", "probabilities")
_PREPROCESS, _AS_THEY_ARE = "difftool.preprocess", "none"
_TRAINING: Final = "difftool.training"

# The rewrites of step graphs are for other layers than these.
_PLAIN: Final = Lowerings(translations={}, rewrites=())


def export_extractor(
    network: nn.Module,
    shape: tuple[int, int, int],
    path: Path | str,
    *,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a network as an extractor of images [C, H, W], with any number of them in a batch.

    The same network gives the same bytes. The file's metadata says that it takes pixels in 0 .. 1
    as they are, and holds `training`, what is known of how it was made, as JSON. A file at `path`
    is replaced.

    Args:
        network: pixels float32 [N, C, H, W] in 0 .. 1 to features [N, F] and probabilities [N, K].
        shape: that of one image, [C, H, W].
        path: the ONNX file to write.
        training: numbers and words by name.

    Raises:
        MissingDependencyError: what exports ONNX is not installed.
        ResourceError: the disk is full, or the folder cannot be written to.

    Examples:
        >>> digits = difftool.data.load("digits", labels="label")
        >>> trained = difftool.train.train_extractor(digits, steps=1)
        >>> difftool.export.export_extractor(trained.network, trained.shape, "digits.onnx")
        >>> difftool.evaluate.open_extractor("digits.onnx").preprocess
        'none'
    """
    metadata = {_PREPROCESS: _AS_THEY_ARE}
    if training is not None:
        metadata[_TRAINING] = json.dumps(training, sort_keys=True)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "extractor.onnx"
        export_module(
            network.eval(),
            (torch.zeros(2, *shape),),
            {"pixels": (Dim("batch"),)},
            _OUTPUTS,
            made,
            _PLAIN,
            metadata,
        )
        write_atomic(path, made.read_bytes())
