"""The records of a run, in its metrics.jsonl: read without PyTorch."""

import json
import math
from pathlib import Path
from typing import Any, Final

from difftool.errors import ArtefactError
from difftool.files import read_limited

METRICS: Final = "metrics.jsonl"
_MOST_BYTES: Final = 1 << 28


def read_metrics(run: Path | str) -> list[dict[str, float]]:
    """Return the records of a run, in the order of their steps.

    A record has "step", "loss", "lr", "grad_norm", "images_per_second" and, after a validation,
    "validation_loss". Lines that are no records, and values that are no finite numbers, are left
    out.

    Raises:
        ArtefactError: `run` has no records.
    """
    path = Path(run) / METRICS
    if not path.is_file():
        raise ArtefactError(f"{run} has no {METRICS}", "give the folder of a run of difftool train")
    found = []
    for line in read_limited(path, _MOST_BYTES).splitlines():
        if read_step(line) is not None:
            found.append(
                {name: each for name, each in json.loads(line).items() if _is_finite(each)}
            )
    if not found:
        raise ArtefactError(
            f"{path} holds no records", "wait for the first one, after run.log_every steps"
        )
    return sorted(found, key=lambda record: record["step"])


def read_step(line: bytes) -> int | None:
    """Return the step of a record; None if the line is anything else."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = value.get("step") if isinstance(value, dict) else None
    return step if type(step) is int else None


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
