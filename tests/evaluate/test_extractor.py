"""Extractors: the shipped one, a user's own, and files that are none."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from onnx import TensorProto

from difftool import data
from difftool.errors import ArtefactError, UsageError
from difftool.evaluate import extractor as module
from difftool.evaluate.extractor import open_extractor, shipped_extractors
from difftool.evaluate.preprocess import Preprocess
from difftool.files import file_sha256
from difftool.runtime import shipped_models
from tests.extractors import MakeExtractor

CVE = Path(__file__).parents[1] / "reliability/corpus/cve"


def _pixels(n: int, height: int = 3, width: int = 2, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def test_the_shipped_extractor_is_no_model_is_small_and_names_no_machine() -> None:
    assert shipped_extractors() == ["mnist"]
    assert "mnist" not in shipped_models()
    path = Path(module.__file__).parents[1] / "extractors/mnist.onnx"
    content = path.read_bytes()
    assert len(content) < 1_000_000
    assert open_extractor().sha256 == file_sha256(path)
    for word in (b"site-packages", b".py", b"/work", b"/home", b"/tmp"):
        assert word not in content


def test_the_shipped_extractor_knows_digits(shared: Path) -> None:
    file = next((shared / "data/mnist").glob("test-*.parquet"))
    images = data.load(str(file)).values[:1000]
    labels = parquet.read_table(file)["label"].to_numpy()[:1000]
    view = open_extractor("mnist", threads=1).view(images.transpose(0, 2, 3, 1))
    assert view.features.shape == (1000, 64)
    assert (view.probabilities.argmax(1) == labels).mean() > 0.985
    np.testing.assert_allclose(view.probabilities.sum(1), 1, atol=1e-5)


def test_an_own_extractor_sees_channels_first_in_0_to_1(make_extractor: MakeExtractor) -> None:
    pixels = _pixels(5, channels=3)
    opened = open_extractor(make_extractor())
    view = opened.view(pixels)
    expected = pixels.transpose(0, 3, 1, 2).reshape(5, -1) / 255
    np.testing.assert_allclose(view.features, expected, atol=1e-7)
    assert view.probabilities is None
    assert opened.name.endswith("extractor.onnx")


def test_a_file_names_its_preprocessing(make_extractor: MakeExtractor) -> None:
    """Small stand-ins of encoders, whose features are their inputs."""
    pixels = _pixels(5, 6, 9)
    opened = open_extractor(make_extractor(axes=("n", 3, 4, 4), preprocess="clip"))
    expected = Preprocess("clip", (3, 4, 4)).apply(pixels).reshape(5, -1)
    assert opened.preprocess == "clip"
    np.testing.assert_array_equal(opened.view(pixels).features, expected)


def test_who_asks_overrules_the_file(make_extractor: MakeExtractor) -> None:
    path = make_extractor(axes=("n", 3, 4, 4), preprocess="clip")
    opened = open_extractor(path, preprocess="none")
    with pytest.raises(UsageError, match=r"images of shape \(3, 4, 4\), not \(1, 6, 9\)"):
        opened.view(_pixels(5, 6, 9))
    opened = open_extractor(path, preprocess="imagenet")
    expected = Preprocess("imagenet", (3, 4, 4)).apply(_pixels(5, 6, 9))
    np.testing.assert_array_equal(opened.view(_pixels(5, 6, 9)).features, expected.reshape(5, -1))


def test_an_unknown_preprocessing_is_refused(make_extractor: MakeExtractor) -> None:
    path = make_extractor(preprocess="magic")
    with pytest.raises(ArtefactError, match="names the preprocessing 'magic', which is unknown"):
        open_extractor(path)
    assert open_extractor(path, preprocess="none").preprocess == "none"
    with pytest.raises(UsageError, match="unknown preprocessing 'blur'"):
        open_extractor(path, preprocess="blur")


@pytest.mark.parametrize("output", ["image_embeds", "pooler_output"])
def test_encoders_name_their_features_otherwise(output: str, make_extractor: MakeExtractor) -> None:
    nodes = (("Identity", "x", "last_hidden_state"), ("Flatten", "x", output))
    view = open_extractor(make_extractor(nodes=nodes)).view(_pixels(5))
    assert view.features.shape == (5, 6)
    assert view.probabilities is None


def test_the_first_token_describes_an_image(make_extractor: MakeExtractor) -> None:
    nodes = (("Squeeze", "x", "last_hidden_state"),)  # [N, tokens, features, 1] without the 1
    path = make_extractor(axes=("n", 3, 4, 1), nodes=nodes)
    pixels = _pixels(5, 4, 1, 3)
    found = open_extractor(path).view(pixels).features
    np.testing.assert_allclose(found, pixels[:, :, 0, 0] / 255, atol=1e-7)


def test_batches_agree(make_extractor: MakeExtractor, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_extractor(nodes=(("Flatten", "x", "features"), ("Flatten", "x", "probabilities")))
    whole = open_extractor(path).view(_pixels(7))
    monkeypatch.setattr(module, "BATCH", 3)
    parts = open_extractor(path).view(_pixels(7))
    np.testing.assert_array_equal(whole.features, parts.features)
    np.testing.assert_array_equal(parts.features, parts.probabilities)


def test_an_extractor_of_other_images_is_refused() -> None:
    with pytest.raises(UsageError, match=r"takes images of shape \(1, 28, 28\), not \(3, 8, 8\)"):
        open_extractor().view(_pixels(2, 8, 8, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": ("n", "d")}, "other inputs than images"),
        ({"kind": TensorProto.DOUBLE}, "other inputs than images"),
        ({"axes": (2, 3, 4, 4)}, "takes 2 images at a time"),
        ({"nodes": (("Flatten", "x", "logits"),)}, "no output 'features'"),
    ],
)
def test_a_graph_with_another_interface_is_refused(
    change: dict[str, object], message: str, make_extractor: MakeExtractor
) -> None:
    with pytest.raises(ArtefactError, match=message):
        open_extractor(make_extractor(**change))


@pytest.mark.parametrize(
    "nodes",
    [[("Identity", "x", "features")], [("Log", "x", "y"), ("Flatten", "y", "features")]],
    ids=["no rows", "not finite"],
)
def test_features_must_be_finite_rows(nodes: list[Any], make_extractor: MakeExtractor) -> None:
    opened = open_extractor(make_extractor(nodes=nodes))
    with pytest.raises(ArtefactError, match="no finite rows"):
        opened.view(np.zeros((2, 3, 3, 1), np.uint8))


def test_a_file_that_is_none_is_refused(tmp_path: Path, make_extractor: MakeExtractor) -> None:
    (tmp_path / "a.onnx").write_bytes(b"not onnx")
    with pytest.raises(ArtefactError, match=r"a\.onnx is not ONNX"):
        open_extractor(tmp_path / "a.onnx")
    opened = open_extractor(make_extractor(nodes=(("Flatten", "nothing", "features"),)))
    with pytest.raises(ArtefactError, match="which nothing before it makes"):
        opened.demand((1, 3, 3))
    with pytest.raises(ArtefactError, match="shipped: mnist"):
        open_extractor("minst")


@pytest.mark.parametrize("path", sorted(CVE.glob("*.onnx")), ids=lambda path: path.stem)
def test_a_file_that_reads_others_is_refused(path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"one file of ONNX's own operators") as caught:
        open_extractor(path)
    assert caught.value.code.startswith("graph-")


def test_memory_is_foreseen(make_extractor: MakeExtractor, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many images run together as memory is allowed for; one must fit."""
    monkeypatch.setattr(module, "MOST_MEMORY", 1 << 20)
    opened = open_extractor(make_extractor())
    pixels = _pixels(20, 64, 64)
    assert opened.view(pixels).features.shape == (20, 4096)
    assert opened.batch == 32
    with pytest.raises(ArtefactError) as caught:
        opened.demand((3, 512, 512))
    assert caught.value.code == "graph-memory"
