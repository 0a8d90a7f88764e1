"""The records of a run, read back."""

import json
from pathlib import Path

import pytest

from difftool.errors import ArtefactError
from difftool.train.metrics import METRICS, read_metrics


def test_records_are_read_by_their_steps(tmp_path: Path) -> None:
    """Without what is no record and no number."""
    lines = ['{"step": 2, "loss": 0.5}', "junk", "[1]", '{"step": 1, "loss": NaN, "lr": 1}', "{"]
    (tmp_path / METRICS).write_text("\n".join(lines))
    assert read_metrics(tmp_path) == [{"step": 1, "lr": 1}, {"step": 2, "loss": 0.5}]


@pytest.mark.parametrize("text", [None, "", "junk\n", json.dumps([1])])
def test_a_run_without_records(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / METRICS).write_text(text)
    with pytest.raises(ArtefactError, match="has no metrics" if text is None else "no records"):
        read_metrics(tmp_path)
