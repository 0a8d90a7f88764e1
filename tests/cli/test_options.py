"""difftool sample --labels and --guidance-scale."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from difftool.bundle import MANIFEST, write_manifest
from difftool.cli.options import class_labels
from difftool.errors import UsageError
from difftool.runtime import load
from tests.cli.conftest import Command, Refusal
from tests.fixtures import CLASSES_SPEC


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (None, None),
        ("2", [2, 2, 2, 2, 2]),
        ("0,1,2", [0, 1, 2, 0, 1]),
        ("0-2", [0, 1, 2, 0, 1]),
        ("2, 0-1", [2, 0, 1, 2, 0]),
        ("none", [3, 3, 3, 3, 3]),
        ("1,none", [1, 3, 1, 3, 1]),
        ("0-999999999", [0, 1, 2, 3, 4]),
    ],
)
def test_labels_are_dealt_out_in_turn(text: str | None, labels: list[int] | None) -> None:
    assert class_labels(text, 5, CLASSES_SPEC) == labels


@pytest.mark.parametrize(
    "text", ["", "cat", "1,", "-1", "1-", "0--2", "1.5", "0-2-4", "²", "1" * 5000]
)
def test_words_that_are_no_labels(text: str) -> None:
    with pytest.raises(UsageError, match="is not a list of labels") as caught:
        class_labels(text, 5, CLASSES_SPEC)
    assert "\n" not in str(caught.value)


NAMED = replace(CLASSES_SPEC, class_names=("cat", "tabby, tiger cat", "0-2"))


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("cat", [0, 0, 0, 0, 0]),
        ("cat,2", [0, 2, 0, 2, 0]),
        ("cat, tabby, tiger cat,none", [0, 1, 3, 0, 1]),
        ("0-2", [2, 2, 2, 2, 2]),
        ("0-1,0-2", [0, 1, 2, 0, 1]),
    ],
)
def test_classes_have_names(text: str, labels: list[int]) -> None:
    assert class_labels(text, 5, NAMED) == labels


def test_a_range_of_names() -> None:
    spec = replace(CLASSES_SPEC, class_names=("1", "10", "2"))
    assert class_labels("1-2", 3, spec) == [0, 2, 0]
    with pytest.raises(UsageError, match="no class '3'"):
        class_labels("1-3", 3, spec)


@pytest.mark.parametrize("text", ["dog", "", "cat,", "tabby", "cat-0"])
def test_a_name_of_no_class(text: str) -> None:
    with pytest.raises(UsageError, match=r"no class .* in a model of 3 \(one of: cat, tabby,"):
        class_labels(text, 5, NAMED)


def test_names_of_classes_in_a_bundle(
    difftool: Command, classes_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(classes_bundle, tmp_path / "named")
    value = json.loads((tmp_path / "named" / MANIFEST).read_text())
    value["spec"]["class_names"] = ["ant", "bee", "cat"]
    write_manifest(tmp_path / "named", value)
    shown = difftool("inspect", "named", "--json").json()["spec"]
    assert shown["class_names"] == ["ant", "bee", "cat"]
    assert "[ant, bee, cat]" in difftool("inspect", "named").out
    digests = []
    for labels in ("bee,2,none", "1,cat,3"):
        line = ("sample", "named", "-n", 3, "--labels", labels, "--out", f"{labels}.npy")
        digests.append(difftool(*line, "--json").json()["sha256"])
    assert digests[0] == digests[1]
    refused = difftool("sample", "named", "--labels", "cow", "--out", "cow.npy")
    refused.refused(2, "no class 'cow' in a model of 3", "one of: ant, bee, cat")


def test_samples_of_classes(difftool: Command, classes_bundle: Path, tmp_path: Path) -> None:
    line = ("sample", classes_bundle, "-n", 4, "--labels", "2,none", "--guidance-scale", 3)
    value = difftool(*line, "--out", "a.npy", "--json").json()
    assert (value["labels"], value["guidance_scale"]) == ("2,none", 3.0)
    model = load(classes_bundle)
    expected = model.sample(n=4, labels=[2, 3, 2, 3], guidance_scale=3.0)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), expected)


def test_without_them_nothing_is_said_of_them(difftool: Command, classes_bundle: Path) -> None:
    value = difftool("sample", classes_bundle, "-n", 1, "--json").json()
    assert not {"labels", "guidance_scale"} & value.keys()


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (("--labels", "4"), "no class 4 in a model of 3", ""),
        (("--labels", "cat"), "is not a list of labels", ""),
        (("--labels", "2-0"), "counts down", "write 0-2"),
        (("--guidance-scale", "nan"), "guidance_scale nan", ""),
    ],
)
def test_refusals_write_nothing(
    refuses: Refusal, classes_bundle: Path, options: tuple[str, str], message: str, hint: str
) -> None:
    refuses(["sample", classes_bundle, "-n", 2, *options], 2, message, hint)


def test_models_without_classes_refuse_labels(difftool: Command, points_bundle: Path) -> None:
    for options in (("--labels", "0"), ("--labels", "none"), ("--guidance-scale", "2")):
        difftool("sample", points_bundle, "-n", 2, *options).refused(2, "no class labels")
