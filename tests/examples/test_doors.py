"""The examples that go through doors alone: a whole way, a backend and an importer of one's own."""

from pathlib import Path

import pytest

import difftool
from examples import own_backend, own_importer, train_export_sample


def test_from_a_configuration_to_samples(tmp_path: Path) -> None:
    found = train_export_sample.main(tmp_path)
    assert found.n == 500
    assert 0 < found.to_dict()["figures"]["sliced_wasserstein"] < 10


def test_a_backend_of_ones_own_runs_the_shipped_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert own_backend.main("CPUExecutionProvider") < 1e-5
    assert capsys.readouterr().out == "(4, 1, 28, 28)\n"


def test_an_importer_of_ones_own_makes_a_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = own_importer.main(tmp_path / "own")
    assert "of our own training code" in capsys.readouterr().out
    assert difftool.load(bundle).sample(n=3, seed=1).shape == (3, 2)
    assert difftool.verify.verify(bundle, tmp_path / "own" / "checkpoint").passed
