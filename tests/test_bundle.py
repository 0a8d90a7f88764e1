"""A bundle is read whole and unchanged, or refused with one line; what is added to it is listed."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from difftool import bundle as format
from difftool.bundle import MANIFEST, STEP, Bounds, amend, read_bundle, write_manifest
from difftool.bundle.amend import with_files
from difftool.errors import ArtefactError, ResourceError


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    change(manifest)
    write_manifest(bundle, manifest)


def refused(bundle: Path, message: str | None = None) -> None:
    with pytest.raises(ArtefactError, match=message):
        read_bundle(bundle)


def test_a_bundle_says_what_it_is(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    assert bundle.spec.shape == (1, 8, 8)
    assert bundle.default_program().name == "ddpm(steps=20, variance='small', clip=True)"
    assert bundle.manifest.provenance.step == 7
    assert bundle.manifest.provenance.weights == "ema"
    assert set(bundle.manifest.files) == {"step.onnx", "conditioner.onnx"}
    with pytest.raises(ArtefactError, match=r"has no step\.ts"):
        bundle.file("step.ts")


def test_a_missing_a_short_and_a_surplus_file_are_found(copy: Path) -> None:
    (copy / "notes.txt").write_text("mine")
    refused(copy, r"holds notes\.txt")
    (copy / "notes.txt").unlink()
    read_bundle(copy)
    os.truncate(copy / "step.onnx", 100)
    refused(copy, "differs from its digest")
    (copy / "step.onnx").unlink()
    refused(copy, r"lacks step\.onnx")


@pytest.mark.parametrize("name", ["../step.onnx", "/etc/passwd", "a/b", "..", "", "a\0b"])
def test_a_listed_path_cannot_leave_the_bundle(copy: Path, name: str) -> None:
    edit(copy, lambda m: m["files"].update({name: m["files"]["step.onnx"]}))
    refused(copy, r"not a plain file name|lacks")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=2), "format 2; this difftool reads up to 1"),
        (lambda m: m.update(format=True), "names no format"),
        (lambda m: m.update(format="1"), "names no format"),
        (lambda m: m.pop("spec"), "spec: Field required"),
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m["spec"].update(parameterization="magic"), "magic"),
        (lambda m: m["spec"].update(shape=[-1, 8]), "no elements"),
        (lambda m: m["program"].update(sampler="magic"), "magic"),
        (lambda m: m["program"].update(arguments={"steps": 21}), "21 steps"),
        (lambda m: m["files"]["step.onnx"].update(size=-1), "size"),
        (lambda m: m["files"]["step.onnx"].update(sha256="00"), "sha256"),
        (lambda m: m["provenance"].update(weights="both"), "weights"),
    ],
)
def test_wrong_manifests(
    copy: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(copy, change)
    refused(copy, message)


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"format": 1, "format": 1}', "[" * 9999])
def test_a_manifest_that_is_no_manifest_is_refused(copy: Path, text: str) -> None:
    (copy / "bundle.json").write_text(text)
    refused(copy)


def test_what_is_judged_is_what_is_read(copy: Path) -> None:
    """A file that is replaced after the bundle was opened does not go to a runtime."""
    bundle, kept = read_bundle(copy), read_bundle(copy)
    good = (copy / STEP).read_bytes()
    assert kept.graph(STEP).data == kept.read(STEP) == good
    for other in (good[:-1] + bytes([good[-1] ^ 1]), good[:-1], good + b"\0"):
        (copy / STEP).write_bytes(other)
        with pytest.raises(ArtefactError):
            bundle.graph(STEP)
        assert kept.graph(STEP).data == good


def test_the_program_is_compiled_once(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Mock(side_effect=format.compile_program)
    monkeypatch.setattr(format, "compile_program", counted)
    opened = read_bundle(tiny_bundle)
    assert opened.default_program() is opened.default_program()
    assert [call.args[1].name for call in counted.call_args_list] == ["ddpm"]


def test_files_and_bounds_are_added_and_replaced(copy: Path) -> None:
    before = read_bundle(copy)
    own = {"int8": Bounds(step_error=0.1, psnr=25)}
    with_files(before, {"a.json": b"1", "b.json": b"2"}, bounds=own)
    after = with_files(read_bundle(copy), {"a.json": b"3"})
    assert (copy / "a.json").read_bytes() == b"3"
    assert (copy / "b.json").read_bytes() == b"2"
    assert after.manifest.bounds == own
    assert after.manifest.files[STEP] == before.manifest.files[STEP]
    assert after.manifest.provenance == before.manifest.provenance


def test_a_bundle_survives_what_fails_half_way(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, manifest = read_bundle(copy), (copy / MANIFEST).read_bytes()
    full = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(amend, "write_manifest", full)
    with pytest.raises(ResourceError, match="No space left"):
        with_files(bundle, {"a.json": b"1"})
    assert (copy / MANIFEST).read_bytes() == manifest
    assert read_bundle(copy).manifest == bundle.manifest
    assert list(copy.parent.iterdir()) == [copy]


def test_a_folder_that_cannot_be_written(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amend.os, "access", lambda *_: False)
    with pytest.raises(ResourceError, match="cannot write into") as caught:
        with_files(read_bundle(copy), {"a.json": b"1"})
    assert "copy the bundle" in caught.value.hint
