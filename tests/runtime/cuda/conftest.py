"""What the tests of the driver compare with."""

from pathlib import Path

import pytest

from difftool.runtime import Model, load


@pytest.fixture(scope="module")
def cpu(tiny_bundle: Path) -> Model:
    """The tiny bundle on ONNX Runtime."""
    return load(tiny_bundle, backend="onnxruntime-cpu", threads=1, max_batch=8)
