"""The commands of the GPU benchmark: pack, run and merge."""

import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.report import RESULTS, failed, figures_in, parser, write

from difftool.errors import DifftoolError, UsageError
from difftool.files import read_json, write_json
from gpu.pack import pack
from gpu.page import page
from gpu.part import Request
from gpu.processes import Launch, in_child, in_process
from gpu.results import NAME, merged
from gpu.run import StageRun, hardware
from gpu.stages import STAGES, Stage


def main(description: str = "", arguments: Sequence[str] | None = None) -> int:
    found = parser(description, "out", "work", rounds=5)
    found.add_argument("command", nargs="?", choices=("run", "merge", "pack"), default="run")
    found.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)}")
    found.add_argument("--minutes", type=float, default=7.5, help="for each stage")
    found.add_argument("--models", type=Path, help="a folder that `pack` made")
    found.add_argument("--dry-run", action="store_true", help="on the CPU, with a fake clock")
    found.add_argument("--name", help="of the run on the page; by default the GPU's")
    found.add_argument("--piece", default="45M", help="the largest file that `pack` makes")
    found.add_argument("--package", action="append", default=[], help="one more wheel; repeatable")
    found.add_argument("--python", default="3.12", help="for which the wheels are")
    found.add_argument("--platform", action="append", help="for which the wheels are; repeatable")
    options = found.parse_intermixed_args(arguments)
    try:
        if options.command == "pack":
            return pack(options)
        return run(options) if options.command == "run" else merge(options)
    except DifftoolError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return error.exit_code


def run(options: Namespace) -> int:
    """Run stages, each to a file `gpu-STAGE.json` in the folder `--out`."""
    if unknown := [name for name in options.stages if name not in STAGES]:
        raise UsageError(f"unknown stage {unknown[0]!r}", f"one of: {', '.join(STAGES)}")
    machine, chosen = hardware(options.dry_run), options.stages or list(STAGES)
    for name in chosen:
        if not options.dry_run:
            run_stage(STAGES[name], options, in_child, machine, "cuda")
            continue
        with tempfile.TemporaryDirectory() as folder:
            options.work = Path(folder)
            run_stage(STAGES[name].dry(), options, in_process, machine, "cpu")
    return 0


def run_stage(
    stage: Stage, options: Namespace, launch: Launch, machine: dict[str, Any], device: str
) -> Path:
    """Run a stage, write what was found, and give its file."""
    print(f"gpu: {stage.name}: {stage.answers}", file=sys.stderr)
    options.work.mkdir(parents=True, exist_ok=True)
    out, begin = options.out or options.work, time.monotonic()
    models = str(options.models or "")
    base = Request("", str(options.work), device, stage.name, models, rounds=options.rounds)
    events = StageRun(stage, base, launch, begin + 60 * options.minutes, device == "cpu").events()
    kept = [event for event in events if event["event"] not in ("doing", "done")]
    setup = {"minutes": round((time.monotonic() - begin) / 60, 1), "rounds": options.rounds}
    path = out / f"gpu-{stage.name}.json"
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, {"stage": stage.name, "machine": machine, "setup": setup, "events": kept})
    print(f"gpu: wrote {path}: {len(kept)} lines", file=sys.stderr)
    return path


def merge(options: Namespace) -> int:
    """Merge the stages in the folder `--work` into one run of the results in `--out`."""
    files = [options.work / f"gpu-{name}.json" for name in STAGES]
    stages = {path.stem.removeprefix("gpu-"): read_json(path) for path in files if path.is_file()}
    if not stages:
        raise UsageError(f"no stage in {options.work}", "use `run` first, and its --out as --work")
    record = merged(stages, options.name)
    found = figures_in(record)
    for figure in found:
        print("  ".join(cell for cell in figure.cells() if cell))
    out = options.out or RESULTS
    before = read_json(out / f"{NAME}.json") if (out / f"{NAME}.json").is_file() else {"runs": []}
    others = [other for other in before["runs"] if other["name"] != record["name"]]
    whole = {"benchmark": NAME, "runs": [record, *others]}
    write(out, whole, page(whole))
    print(f"wrote {out / NAME}.md and {NAME}.json", file=sys.stderr)
    return failed(found)
