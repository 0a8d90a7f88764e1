"""The request to torch-fidelity, and files that are refused before it unpickles them."""

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from difftool.errors import ArtefactError, MissingDependencyError
from difftool.evaluate.inception import InceptionFigures, inception_figures

GREY = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4, 1)
COLOUR = np.arange(3 * 3 * 4 * 3, dtype=np.uint8).reshape(3, 3, 4, 3)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments that a stand-in of torch-fidelity was called with."""
    seen: dict[str, Any] = {}

    def calculate_metrics(**arguments: Any) -> dict[str, float]:
        seen.update(arguments)
        return {
            "frechet_inception_distance": 12.5,
            "inception_score_mean": 9.0,
            "inception_score_std": 0.25,
        }

    module = SimpleNamespace(calculate_metrics=calculate_metrics)
    monkeypatch.setitem(sys.modules, "torch_fidelity", module)
    return seen


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": torch.zeros(2)}, path)
    return path


def test_colour_tensors_and_own_weights_are_given(asked: dict[str, Any], weights: Path) -> None:
    found = inception_figures(GREY, COLOUR, weights)
    assert found == InceptionFigures(fid=12.5, inception_score=9.0, inception_score_std=0.25)
    assert asked["feature_extractor_weights_path"] == str(weights)
    assert asked["fid"]
    assert asked["isc"]
    assert not asked["cache"]
    samples, data = asked["input1"], asked["input2"]
    assert isinstance(samples, Dataset)
    assert (len(samples), len(data)) == (2, 3)
    assert samples[1].dtype == torch.uint8
    np.testing.assert_array_equal(samples[1].numpy(), np.stack([GREY[1, ..., 0]] * 3))
    np.testing.assert_array_equal(data[2].numpy(), COLOUR[2].transpose(2, 0, 1))
    batch = next(iter(torch.utils.data.DataLoader(data, batch_size=3)))
    assert batch.shape == (3, 3, 3, 4)


class Attack:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (print, ("executed",))


def test_weights_that_would_run_code_are_refused(
    asked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ArtefactError, match="not plain weights"):
        inception_figures(GREY, COLOUR, path)
    with pytest.raises(ArtefactError, match="no weights at"):
        inception_figures(GREY, COLOUR, tmp_path / "absent.pth")
    assert asked == {}
    assert capsys.readouterr().out == ""


def test_a_missing_torch_fidelity_is_named(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\S+\[eval\]'"):
        inception_figures(GREY, COLOUR, weights)
