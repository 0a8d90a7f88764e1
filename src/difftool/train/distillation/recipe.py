"""The usual configuration of a distillation, from what its teacher says of itself."""

from pathlib import Path
from typing import Any, Final

from difftool.errors import UsageError
from difftool.networks.trained import load_checkpoint
from difftool.train.config import parse_as
from difftool.train.distillation.config import DistillConfig

_STEPS: Final = {"consistency": 4000, "consistency_tuning": 8000, "progressive": 5000}


def distill_config(
    teacher: Path | str,
    *,
    data: str | None = None,
    method: str = "consistency",
    steps: int = 4,
    guidance_scale: float = 1.0,
) -> DistillConfig:
    """Return the usual configuration for a teacher; `apply_overrides` changes it.

    Args:
        teacher: a run or a checkpoint, imported ones too.
        data: a source as for `difftool.data.load`; by default the one that the teacher's own
            configuration names. How the data was prepared is taken from there in any case.
        method: "consistency", "consistency_tuning" or "progressive".
        steps: the network evaluations of the student's default program.
        guidance_scale: the guidance that the student does in one evaluation; 1 is none.

    Raises:
        UsageError: there is no such method, a number is out of range, or no data is known.
        ArtefactError: the teacher is not a checkpoint, or a damaged one.

    Examples:
        >>> config = difftool.train.distill_config("runs/digits", method="progressive", steps=8)
        >>> config.data.source, config.student.steps
        ('digits', 8)
    """
    loaded = load_checkpoint(teacher)
    trained: dict[str, Any] = (loaded.config["training"] or {}).get("data", {})
    if data is None and "source" not in trained:
        raise UsageError(f"{teacher} does not say which data it was trained on", "give `data`")
    source = trained if data is None else {**trained, "source": data}
    if loaded.spec.classes and source.get("labels") is None:
        source = {**source, "labels": "label"}
    return parse_as(
        DistillConfig,
        {
            "teacher": str(teacher),
            "student": {
                "method": method,
                "steps": steps,
                "guidance_scale": guidance_scale,
                "label_dropout": 0.1 if loaded.spec.null_label else 0.0,
            },
            "data": source,
            "run": {"steps": _STEPS.get(method, 1)},
        },
    )
