"""Write docs/configuration.md: every key of a training and of a distillation.

python docs/configuration.py

What a key is, is the text under it in `difftool.train`; what a network or a schedule takes is its
signature.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from difftool import train

PAGE: Final = Path(__file__).resolve().parent / "configuration.md"
HEAD: Final = "# Configuration\n\n*This page is written by `python docs/configuration.py`.*\n\n"
INTRODUCTION: Final = """\
These are all keys of a [training](training.md) and of a [distillation](distillation.md), with their
defaults. A key without a default must be set, which presets do; a key whose default is none may be
left out. Any key can stand in a file for `--config`, and after `--set`, as in
`--set optimizer.lr=1e-4`. `--print-config` prints all of them for a preset, with these texts as
comments, and trains nothing:

```sh
difftool train ddpm --preset digits --print-config
```
"""
KEYS: Final = "| key | default | |\n|---|---|---|\n"
ARGUMENTS: Final = "| kind | arguments, with their defaults |\n|---|---|\n"


def page() -> str:
    """Return the whole page."""
    training = list(train.keys(train.TrainConfig))
    known = {key.name for key in training}
    student = [key for key in train.keys(train.DistillConfig) if key.name not in known]
    filled = ", ".join(f"`{name}`" for name in train.FILLED_IN)
    parts = [
        HEAD + INTRODUCTION,
        "## Training\n",
        _keys(training),
        "## Distillation\n",
        "The sections `data`, `optimizer`, `ema` and `run` are those of a training.\n",
        _keys(student),
        "## Networks\n",
        "`network.arguments`, by `network.kind`. A training fills in these if a network takes\n"
        f"them: {filled}.\n",
        _arguments(train.network_arguments()),
        "## Noise levels\n",
        "`schedule` has these next to `schedule.kind`.\n",
        _arguments(train.schedule_arguments()),
        "The arguments of samplers are [on another page](sampling.md#choosing-a-sampler).\n",
    ]
    return "\n".join(parts)


def _keys(found: Iterable[train.Key]) -> str:
    """Return tables of keys, one for each section."""
    lines = [KEYS]
    for key in found:
        if key.section:
            lines.append(f"\n### {key.name}\n\n{key.text}\n\n{KEYS}")
            continue
        assert key.text, f"{key.name} has no text under it"
        default = key.default if key.default in ("", "none") else f"`{key.default}`"
        lines.append(f"| `{key.name}` | {default} | {key.text} |\n")
    return "".join(lines)


def _arguments(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table of the arguments of each kind."""
    lines = [ARGUMENTS]
    for kind, arguments in found.items():
        taken = [
            f"`{name}`" if default is ... else f"`{name}={_word(default)}`"
            for name, default in arguments.items()
        ]
        lines.append(f"| `{kind}` | {', '.join(taken)} |\n")
    return "".join(lines)


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool | None) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
