"""A report is plain data, and a bundle that holds one is still a whole bundle."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from difftool.bundle import read_bundle
from difftool.verify.compared import verify_sides
from difftool.verify.report import store, to_record
from difftool.verify.sides import open_sides


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_bundle, tmp_path / "copy")


def test_a_stored_report_says_what_was_found(copy: Path) -> None:
    bundle = read_bundle(copy)
    candidate, reference = open_sides(bundle, backend="numpy")
    result = verify_sides(bundle, candidate, reference, n=3, seed=2)
    record = to_record(result, candidate, reference, seed=2)
    names = ["verify-numpy-fp32.json", "verify-numpy-fp32.png"]
    assert store(bundle, candidate, result, record, b"picture") == names
    again = read_bundle(copy)  # which fails if a file is not listed
    assert again.manifest.files.keys() - bundle.manifest.files.keys() == {*names}
    found = json.loads(again.file(names[0]).read_text())
    rows = found.pop("rows")
    assert found == json.loads(json.dumps(record))
    assert (found["backend"], found["against"]) == ("numpy", "onnxruntime-cpu")
    assert (found["n"], found["seed"], found["passed"]) == (3, 2, True)
    alpha, sigma = result.program.targets[:-1].T
    expected = {"largest": result.errors, "rms": result.rms, "sigma": sigma, "alpha": alpha}
    for name, values in expected.items():
        assert np.allclose(rows[name], values, rtol=1e-4), name


def test_numbers_that_are_not_finite_are_null(copy: Path) -> None:
    bundle = read_bundle(copy)
    candidate, reference = open_sides(bundle, backend="numpy")
    result = verify_sides(bundle, candidate, reference)
    result.errors[7] = np.nan
    record = to_record(result, candidate, reference)
    assert (record["worst_row"], record["step_error"], record["passed"]) == (7, None, False)
    store(bundle, candidate, result, record)
    text = (copy / "verify-numpy-fp32.json").read_text()
    assert json.loads(text)["rows"]["largest"][7] is None
