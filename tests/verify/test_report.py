"""A report is plain data, and a bundle that holds one is still a whole bundle."""

import json
from pathlib import Path

import numpy as np

from difftool.bundle import read_bundle
from difftool.verify import verify
from tests.verify.defects import copied

NAMES = ["verify-numpy-fp32.json", "verify-numpy-fp32.png"]


def test_a_stored_report_says_what_was_found(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = copied(tiny_bundle, tmp_path / "copy", {})
    report = verify(bundle, backend="numpy", n=3, seed=2)
    assert report.store() == NAMES
    again = read_bundle(bundle.path)  # which fails if a file is not listed
    assert again.manifest.files.keys() - bundle.manifest.files.keys() == {*NAMES}
    found = json.loads(again.file(NAMES[0]).read_text())
    rows = found.pop("rows")
    assert found == json.loads(json.dumps(report.to_dict()))
    assert (found["backend"], found["against"]) == ("numpy", "onnxruntime-cpu")
    assert (found["n"], found["seed"], found["passed"]) == (3, 2, True)
    alpha, sigma = report.result.program.targets[:-1].T
    result = report.result
    expected = {"largest": result.errors, "rms": result.rms, "sigma": sigma, "alpha": alpha}
    for name, values in expected.items():
        assert np.allclose(rows[name], values, rtol=1e-4), name


def test_numbers_that_are_not_finite_are_null(tiny_bundle: Path, tmp_path: Path) -> None:
    report = verify(copied(tiny_bundle, tmp_path / "copy", {}), backend="numpy")
    report.result.errors[7] = np.nan
    record = report.to_dict()
    assert (record["worst_row"], record["step_error"], record["passed"]) == (7, None, False)
    report.store()
    text = (report.bundle.path / NAMES[0]).read_text()
    assert json.loads(text)["rows"]["largest"][7] is None
