"""Labels and guidance through the embedding API; see also tests/export/test_guidance.py."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from difftool.bundle import MANIFEST, Bundle, read_bundle, write_manifest
from difftool.errors import UsageError
from difftool.runtime import Model, Request, edits, load
from difftool.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu
from tests.fixtures import IMAGE_SPEC

NULL = 3
LABELS = [2, 0, NULL, 1, 2, 0, 0]


@pytest.fixture(scope="module")
def model(classes_bundle: Path) -> Model:
    return load(classes_bundle, threads=1, max_batch=3)


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_the_neighbours_labels_do_not_matter(model: Model, scale: float) -> None:
    """Bit for bit, as one batch of one class and as part of mixed batches."""
    mixed = model.sample(n=7, labels=LABELS, guidance_scale=scale, deterministic=True)
    for label in set(LABELS):
        alike = model.sample(n=7, labels=label, guidance_scale=scale, deterministic=True)
        for i in range(7):
            assert np.array_equal(mixed[i], alike[i]) == (LABELS[i] == label)


def test_a_sample_is_the_same_in_batches_of_any_size(classes_bundle: Path, model: Model) -> None:
    whole = load(classes_bundle, threads=1, max_batch=7)
    runs = [m.sample(n=7, labels=LABELS, guidance_scale=2.5) for m in (model, whole)]
    assert np.abs(runs[0] - runs[1]).max() < 1e-5
    alone = model.sample(n=1, first_sample=4, labels=2, guidance_scale=2.5)
    assert np.abs(alone[0] - runs[0][4]).max() < 1e-5


def labels_of(request: Request, null_label: bool = True) -> list[int]:
    labels = request.labels_at(
        np.arange(request.n), replace(IMAGE_SPEC, classes=3, null_label=null_label)
    )
    assert labels is not None
    assert labels.guidance_scale == request.guidance_scale
    return labels.of.tolist()


@pytest.mark.parametrize(("null_label", "scale"), [(True, 1.0), (True, 2.0), (False, 1.0)])
def test_by_default_a_class_belongs_to_the_index(null_label: bool, scale: float) -> None:
    whole = labels_of(Request(n=3000, seed=5), null_label)
    part = Request(n=40, first_sample=7, seed=5, guidance_scale=scale)
    assert labels_of(part, null_label) == whole[7:47]
    assert labels_of(Request(n=40, seed=6)) != whole[:40]
    assert np.bincount(whole).min() > 900, "each class is a third, without the null label"


def test_a_way_between_two_samples_has_the_classes_of_its_ends() -> None:
    seed = next(s for s in range(9) if len({*labels_of(Request(n=2, seed=s))}) == 2)
    first, last = labels_of(Request(n=2, seed=seed))
    assert labels_of(Request(n=5, seed=seed, between=(0, 1))) == [first] * 3 + [last] * 2


def test_given_data_have_a_class_which_is_not_drawn() -> None:
    data = np.zeros(IMAGE_SPEC.shape, np.float32)
    for given in ({"init": data}, {"edit": edits.inpaint(data, data)}):
        assert labels_of(Request(n=2, **given)) == [NULL, NULL]
        assert labels_of(Request(n=2, **given), null_label=False) == labels_of(Request(n=2))
        assert labels_of(Request(n=2, labels=1, **given)) == [1, 1]


def test_samples_have_the_classes_that_the_request_says(model: Model) -> None:
    drawn = labels_of(Request(n=7, seed=1))
    assert np.array_equal(model.sample(n=7, seed=1), model.sample(n=7, seed=1, labels=drawn))


def test_the_null_label_is_beyond_guidance(model: Model) -> None:
    runs = [model.sample(n=3, labels=NULL, guidance_scale=scale) for scale in (1.0, 5.0)]
    assert np.abs(runs[0] - runs[1]).max() < 1e-5


def unchanged(bundle: Bundle) -> Bundle:
    return bundle


def unlabelled(bundle: Bundle) -> Bundle:
    """Say of the same graph that it has no null label."""
    return replace(bundle, spec=replace(bundle.spec, null_label=False))


def unguided(bundle: Bundle) -> Bundle:
    """Say of the same graph that it computes no guidance."""
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"fused": []}))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (unchanged, {"labels": 4}, r"no class 4 in a model of 3 \(labels are 0 to 3\)"),
        (unchanged, {"labels": [0, -1]}, "no class -1"),
        (unchanged, {"labels": [0, 1, 2]}, r"labels of shape \(3,\) for 2 samples"),
        (unchanged, {"labels": 1.0}, "give one integer"),
        (unlabelled, {"labels": NULL}, "trained with labels only.*0 to 2"),
        (unlabelled, {"guidance_scale": 2.0}, "never learned.*label_dropout"),
        (unguided, {"guidance_scale": 2.0}, "no guidance .*`features=guidance`"),
    ],
)
def test_refusals_are_one_line(
    classes_bundle: Path, make: Callable[..., Bundle], options: dict[str, object], message: str
) -> None:
    bundle = make(read_bundle(classes_bundle))
    model = Model(bundle, OnnxRuntimeCpu(bundle, threads=1))
    with pytest.raises(UsageError, match=message) as caught:
        model.sample(n=2, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"labels": 0}, {"guidance_scale": 2.0}])
def test_without_classes(tiny_bundle: Path, options: dict[str, object]) -> None:
    assert read_bundle(tiny_bundle).spec.classes == 0
    with pytest.raises(UsageError, match="has no class labels"):
        load(tiny_bundle).sample(n=1, **options)


def test_labels_by_name(classes_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(classes_bundle, tmp_path / "named")
    value = json.loads((tmp_path / "named" / MANIFEST).read_text())
    value["spec"]["class_names"] = ["ant", "bee", "cat"]
    write_manifest(tmp_path / "named", value)
    model = load(tmp_path / "named", threads=1)
    for names, indices in (("cat", 2), (["bee", 2, "none", "0"], [1, 2, NULL, 0])):
        expected = model.sample(n=4, labels=indices)
        assert np.array_equal(model.sample(n=4, labels=names), expected)
        assert np.array_equal(model.submit(Request(n=4, labels=names)).result(), expected)
    with pytest.raises(UsageError, match=r"no class 'cow' .*one of: ant, bee, cat"):
        model.sample(n=4, labels=["ant", "cow", "ant", "ant"])


@pytest.mark.parametrize("labels", [[0.5, 1.0], ["ant"], [["ant", "bee"]], [True, "ant"], [2**70]])
def test_what_are_no_labels(labels: list[object]) -> None:
    with pytest.raises(UsageError, match=r"give one integer or name"):
        Request(n=2, labels=labels)
