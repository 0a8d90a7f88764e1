"""A bundle is read whole and unchanged, or refused with one line."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from difftool import bundle as format
from difftool.bundle import STEP, read_bundle, write_manifest
from difftool.diffusion.program import Program
from difftool.errors import ArtefactError


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    change(manifest)
    write_manifest(bundle, manifest)


def test_a_bundle_says_what_it_is(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    assert bundle.spec.shape == (1, 8, 8)
    assert bundle.default_program().name == "ddpm(steps=20, variance='small', clip=True)"
    assert bundle.manifest.provenance.step == 7
    assert bundle.manifest.provenance.weights == "ema"
    assert set(bundle.manifest.files) == {"step.onnx", "conditioner.onnx"}
    with pytest.raises(ArtefactError, match=r"has no step\.ts"):
        bundle.file("step.ts")


@pytest.mark.parametrize("name", ["step.onnx", "conditioner.onnx"])
def test_one_flipped_bit_is_found(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(ArtefactError, match="differs from its digest"):
        read_bundle(copy)


def test_a_missing_a_short_and_a_surplus_file_are_found(copy: Path) -> None:
    (copy / "notes.txt").write_text("mine")
    with pytest.raises(ArtefactError, match=r"holds notes\.txt"):
        read_bundle(copy)
    (copy / "notes.txt").unlink()
    read_bundle(copy)
    os.truncate(copy / "step.onnx", 100)
    with pytest.raises(ArtefactError, match="differs from its digest"):
        read_bundle(copy)
    (copy / "step.onnx").unlink()
    with pytest.raises(ArtefactError, match=r"lacks step\.onnx"):
        read_bundle(copy)


def test_links_are_refused_whatever_they_point_to(copy: Path, tiny_bundle: Path) -> None:
    (copy / "step.onnx").unlink()
    (copy / "step.onnx").symlink_to(tiny_bundle / "step.onnx")
    with pytest.raises(ArtefactError, match="is a link"):
        read_bundle(copy)
    (copy / "step.onnx").unlink()
    shutil.copy(tiny_bundle / "step.onnx", copy.parent / "elsewhere")
    os.link(copy.parent / "elsewhere", copy / "step.onnx")
    with pytest.raises(ArtefactError, match="is a link"):
        read_bundle(copy)


@pytest.mark.parametrize("name", ["../step.onnx", "/etc/passwd", "a/b", "..", "", "a\0b"])
def test_a_listed_path_cannot_leave_the_bundle(copy: Path, name: str) -> None:
    edit(copy, lambda m: m["files"].update({name: m["files"]["step.onnx"]}))
    with pytest.raises(ArtefactError, match=r"not a plain file name|lacks"):
        read_bundle(copy)


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
def test_a_wrong_manifest_is_refused(
    copy: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(copy, change)
    with pytest.raises(ArtefactError, match=message):
        read_bundle(copy)


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"format": 1, "format": 1}', "[" * 9999])
def test_a_manifest_that_is_no_manifest_is_refused(copy: Path, text: str) -> None:
    (copy / "bundle.json").write_text(text)
    with pytest.raises(ArtefactError):
        read_bundle(copy)


def test_an_enormous_manifest_is_not_read(copy: Path) -> None:
    (copy / "bundle.json").write_bytes(b" " * (2 << 20))
    with pytest.raises(ArtefactError, match="larger than"):
        read_bundle(copy)


def test_what_is_judged_is_what_is_read(tiny_bundle: Path, tmp_path: Path) -> None:
    """A file that is replaced after the bundle was opened does not go to a runtime."""
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    bundle = read_bundle(copy)
    good = (copy / STEP).read_bytes()
    assert bundle.graph(STEP).data == bundle.read(STEP) == good
    for other in (good[:-1] + bytes([good[-1] ^ 1]), good[:-1], good + b"\0"):
        (copy / STEP).write_bytes(other)
        with pytest.raises(ArtefactError):
            bundle.graph(STEP)


def test_the_default_program_is_compiled_once(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    compile_program = format.compile_program

    def counted(*arguments: Any) -> Program:
        compiled.append(arguments[1].name)
        return compile_program(*arguments)

    monkeypatch.setattr(format, "compile_program", counted)
    opened = read_bundle(tiny_bundle)
    assert opened.default_program() is opened.default_program()
    assert compiled == ["ddpm"]
