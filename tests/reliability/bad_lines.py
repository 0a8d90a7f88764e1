"""Command lines that are wrong, made from the tree of commands itself: every option, in every way.

A line holds {bundle}, {checkpoint} and {points} for things of that kind, and may name these in
the folder it is run in: `folder`, `taken.png`, and `garbage.bin`, which is no file of any format.
"""

from collections.abc import Iterator
from typing import Any, Final

_GOOD: Final = {  # of what a command must have, by its metavar
    "METHOD": "ddpm",
    "PATH": "{checkpoint}",
    "CHECKPOINT": "{checkpoint}",
    "BUNDLE": "{bundle}",
    "MODEL": "{bundle}",
    "[NAME=]MODEL...": "{bundle}",
    "DATA": "digits",
    "SOURCE": "digits",
    "RUN...": "{checkpoint}",
}
_USUAL: Final = ("METHOD", "CHECKPOINT")  # what is rarely left out
_NUMBERS: Final = {int: ("many", "1.5", "", "-7"), float: ("many", "", "nan", "-inf")}
_ABSENT: Final = ("nowhere", "nowhere.npy", "garbage.bin", "folder")
_WRONG: Final = {  # values without a meaning, by the option that takes them
    "--sampler": ("magic", "", "ddpm,ddim"),
    "--backend": ("abacus", "tensorrt:fp7", ""),
    "--against": ("abacus", "nowhere.parquet"),
    "--against-precision": ("fp7",),
    "--precision": ("fp7", "FP32", ""),
    "--gpu": ("sm1", "voodoo2"),
    "--profile": ("3,2,1", "1", "a,b,c", "0,0,0"),
    "--labels": ("x", "9-1", "-1"),
    "--between": ("0", "a,b", "1,-1"),
    "--resume": _ABSENT,
    "--fill": ("nowhere", "garbage.bin"),
    "--arg": ("x", "=1", "steps=[1]", "colour=1", "eta=null", "clip={{}}", "steps=1e400"),
    "--set": ("x", "=1", "run.speed=1", "a.b.c=2"),
    "--as": ("nonsense", ""),
    "--with": ("nothing",),
    "--preset": ("nothing", ""),
    "--config": ("garbage.bin", "nowhere.toml", "folder"),
    "--data": ("nowhere.parquet", "garbage.bin"),
    "--calibrate": ("nowhere.parquet",),
    "--extractor": ("nowhere", "garbage.bin"),
    "--preprocess": ("magic", ""),
    "--mode": ("CMYK", ""),
    "--batch": ("0", "a,b", "-1"),
    "--format": ("jpg", ""),
    "--method": ("guess",),
    **dict.fromkeys(("--out", "--triton"), ("taken.png", "taken.png/inside.png")),
    **dict.fromkeys(("--known", "--grey", "--init", "--samples", "--inception"), _ABSENT),
    **dict.fromkeys(("--checkpoint",), ("nowhere", "garbage.bin", "folder")),
}
# Lines whose parts are right, and do not go together.
_CONTRADICTIONS: Final = (
    "sample {bundle} --known taken.png",
    "sample {bundle} --fill left",
    "sample {bundle} --strength 0.5",
    "sample {bundle} --known garbage.bin --fill left --grey garbage.bin",
    "sample {bundle} --labels 1",
    "sample {bundle} --guidance-scale 2",
    "sample {bundle} --eta 0.5",
    "sample {bundle} --steps 21",
    "sample {bundle} --format gif --out a/b/taken",
    "sample {bundle} --precision int8",
    "sample {bundle} --backend torchscript",
    "sample {bundle} --backend openvino --precision fp16",
    "sample {points} --out grid.png",
    "sample {points} --grey garbage.bin",
    "sample {bundle} --max-work 1",
    "sample {bundle} --max-bundle 1e-6",
    "sample {bundle} --max-memory 0",
    "sample {bundle} --shard-size 5",
    "sample {bundle} --shard-size 0 --out new",
    "sample {bundle} --shard-size 5 -n 0 --out new",
    "sample {bundle} --shard-size 5 --out {bundle}",
    "sample {bundle} --shard-size 5 --out taken.png",
    "sample {bundle} --shard-size 5 --known taken.png --fill left --out new",
    "sample {bundle} --gpus-per-task 1",
    "sample {bundle} --ray nowhere --out new",
    "sample {bundle} --ray 127.0.0.1:1 --out new",
    "sample {checkpoint}",
    "inspect folder",
    "inspect garbage.bin",
    "export {bundle} --out new",
    "export {checkpoint} --out folder --force",
    "export {checkpoint} --out new --with guidance",
    "verify {bundle} {points}",
    "verify {checkpoint} {bundle}",
    "train ddpm --preset digits --config garbage.bin",
    "train ncsn --preset digits",
    "distill {checkpoint}",
    "distill {checkpoint} --data moons",
    "distill {checkpoint} --preset ddpm-mnist-fast --config garbage.bin",
    "distill {points} --data gaussians --method progressive --steps 5",
    "program {points} --steps 7",
    "program {bundle} --out folder",
    "web {bundle} --runtime folder",
    "compile {bundle}",
    "compile {bundle} --trt --precision fp7",
    "cache rm",
    "cache rm nothing",
    "cache why {bundle} --precision fp7",
    "plot",
    "plot scores {bundle} --out new.png",
    "plot scores {points} --level 99 --out new.png",
    "eval {bundle}",
    "eval {bundle} --against garbage.bin",
    "likelihood {checkpoint} --data nowhere.parquet",
    "",
    "--nonsense",
    "sampel",
    "--debug sample nowhere --jsn",
)  # fmt: skip


def bad_lines() -> list[list[str]]:
    """Return all of them, as words; the order is that of the commands."""
    from typer.main import get_command

    from difftool.cli.app import app

    found = [line.split() for line in _CONTRADICTIONS if line]
    for path, command in _leaves(get_command(app), []):
        found += [[*path, *words] for words in _of_command(command)]
    return found


def _leaves(command: Any, path: list[str]) -> Iterator[tuple[list[str], Any]]:
    """Yield every command that runs, with the words that lead to it."""
    inner = getattr(command, "commands", None)
    if not inner:
        yield path, command
        return
    for name, child in inner.items():
        yield from _leaves(child, [*path, name])


def _of_command(command: Any) -> Iterator[list[str]]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    first = [_GOOD[p.metavar] for p in arguments if p.required or p.metavar in _USUAL]
    needed = [word for p in options if p.required for word in (p.opts[0], _given(p))]
    good = [*first, *needed]
    yield [*good, "a", "b", "c", "--nonsense"]
    if good:
        yield []
        yield good[:-1]
    for place in range(len(first)):
        for absent in _ABSENT:
            yield [*first[:place], absent, *first[place + 1 :], *needed]
    for option in options:
        name = option.opts[0]
        rest = [*first, *_without(needed, name)]
        yield [*rest, f"{name}z"]
        for value in _values(option):
            yield [*rest, f"{name}={value}"] if name.startswith("--") else [*rest, name, value]
        if not option.is_flag:
            yield [*rest, name]


def _values(option: Any) -> tuple[str, ...]:
    """Return values that an option cannot take."""
    if option.is_flag:
        return ("3",)
    known = next((_WRONG[name] for name in option.opts if name in _WRONG), ())
    kind = option.type_descriptor.annotation
    if kind == list[int]:
        kind = int
    return (*_NUMBERS.get(kind, ()), *known)


def _given(option: Any) -> str:
    return "new" if "--out" in option.opts else _GOOD[option.metavar]


def _without(words: list[str], name: str) -> list[str]:
    if name not in words:
        return words
    place = words.index(name)
    return words[:place] + words[place + 2 :]
