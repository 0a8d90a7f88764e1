"""A report is plain data, and a bundle that holds one is still a whole bundle."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from difftool.bundle import MANIFEST, STEP, Bounds, amend, read_bundle
from difftool.bundle.amend import with_files
from difftool.errors import ResourceError
from difftool.verify.compared import verify_sides
from difftool.verify.report import record_of, store
from difftool.verify.sides import open_sides


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_bundle, tmp_path / "copy")


def test_a_stored_report_says_what_was_found(copy: Path) -> None:
    bundle = read_bundle(copy)
    candidate, reference = open_sides(bundle, backend="numpy")
    result = verify_sides(bundle, candidate, reference, n=3, seed=2)
    record = record_of(result, candidate, reference, seed=2)
    assert store(bundle, candidate, result, record, b"picture") == [
        "verify-numpy-fp32.json",
        "verify-numpy-fp32.png",
    ]
    again = read_bundle(copy)  # which fails where a file is not listed
    assert again.manifest.files.keys() - bundle.manifest.files.keys() == {
        "verify-numpy-fp32.json",
        "verify-numpy-fp32.png",
    }
    found = json.loads(again.file("verify-numpy-fp32.json").read_text())
    rows = found.pop("rows")
    assert found == json.loads(json.dumps(record))
    assert (found["backend"], found["against"]) == ("numpy", "onnxruntime-cpu")
    assert (found["n"], found["seed"], found["passed"]) == (3, 2, True)
    assert np.allclose(rows["largest"], result.errors, rtol=1e-4)
    assert np.allclose(rows["rms"], result.rms, rtol=1e-4)
    assert np.allclose(rows["sigma"], result.program.targets[:-1, 1], rtol=1e-4)
    assert np.allclose(rows["alpha"], result.program.targets[:-1, 0], rtol=1e-4)


def test_numbers_that_are_not_finite_are_null(copy: Path) -> None:
    bundle = read_bundle(copy)
    candidate, reference = open_sides(bundle, backend="numpy")
    result = verify_sides(bundle, candidate, reference)
    result.errors[7] = np.nan
    record = record_of(result, candidate, reference)
    assert (record["worst_row"], record["step_error"], record["passed"]) == (7, None, False)
    store(bundle, candidate, result, record)
    text = (copy / "verify-numpy-fp32.json").read_text()
    assert json.loads(text)["rows"]["largest"][7] is None


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
    bundle = read_bundle(copy)
    manifest = (copy / MANIFEST).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

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
