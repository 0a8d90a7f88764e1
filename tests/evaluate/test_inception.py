"""What is asked of torch-fidelity, and files that are refused before it unpickles them."""

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from difftool import evaluate
from difftool.errors import ArtefactError, MissingDependencyError, UsageError
from difftool.evaluate.distances import fit_gaussian, frechet_distance
from difftool.evaluate.inception import WEIGHTS, InceptionFigures, inception_figures
from difftool.files import file_sha256

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


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arguments that a stand-in of torch-fidelity's network was made with.

    Its features are the means of red, green and blue over 0 .. 255.
    """
    seen: list[Any] = []

    class Network(torch.nn.Module):
        def __init__(self, name: str, layers: list[str], **arguments: Any) -> None:
            super().__init__()
            seen.append((name, layers, arguments))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            assert x.dtype == torch.uint8
            return (x.float().mean((2, 3)),)

    module = SimpleNamespace(FeatureExtractorInceptionV3=Network)
    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)
    return seen


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_inception_is_an_extractor(pixels: Any, made: list[Any], weights: Path) -> None:
    opened = evaluate.open_extractor("inception", weights=weights)
    many = np.concatenate([pixels] * 40)  # more than run together
    found = opened.view(many)
    expected = np.broadcast_to(many, (*many.shape[:3], 3)).mean((1, 2))
    np.testing.assert_allclose(found.features, expected, rtol=1e-6)
    assert found.probabilities is None
    assert (opened.name, opened.sha256) == ("inception", file_sha256(weights))
    asked = {"feature_extractor_weights_path": str(weights)}
    assert made == [("inception-v3-compat", ["2048"], asked)]


def test_figures_in_its_features_have_no_classes(made: list[Any], weights: Path) -> None:
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 256, (2, 20, 4, 4, 3), dtype=np.uint8)
    opened = evaluate.open_extractor("inception", weights=weights)
    record = evaluate.evaluate(one, against=other, extractor=opened).to_dict()
    assert record["classes"] is None
    assert (record["extractor"], record["preprocess"]) == ("inception", "inception")
    means = one.mean((1, 2)), other.mean((1, 2))
    expected = frechet_distance(*map(fit_gaussian, means))
    assert record["figures"]["frechet_distance"] == pytest.approx(expected, rel=1e-5)


def test_weights_are_looked_for_where_torch_keeps_them(
    made: list[Any], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    with pytest.raises(ArtefactError, match="no weights at") as caught:
        evaluate.open_extractor("inception")
    assert "difftool downloads nothing" in caught.value.hint
    cache = tmp_path / "home/hub/checkpoints"
    cache.mkdir(parents=True)
    weights.rename(cache / WEIGHTS)
    assert evaluate.open_extractor("inception").sha256 == file_sha256(cache / WEIGHTS)


def test_it_needs_torch_fidelity_and_takes_no_preprocessing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\S+\[eval\]'"):
        evaluate.open_extractor("inception")
    with pytest.raises(UsageError, match="inception prepares images by itself"):
        evaluate.open_extractor("inception", preprocess="clip")
