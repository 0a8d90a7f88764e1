"""A part of the GPU benchmark, in a process of its own: an error on a GPU can end a process.

What is found is written line by line to a journal, together with what is being done, so that
nothing is lost and the candidate that ended the process is known.

    cd benchmarks
    python -m gpu.part '{"job": "speed", "model": "cifar10", ...}'
"""

import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from common.candidates import Runner
from common.timing import Clock

from difftool.errors import DifftoolError, first_line
from gpu.candidates import HALVES, Kind, in_precision
from gpu.engine import load_engine
from gpu.stages import STAGES, Stage
from gpu.timing import MATMUL, free_bytes, heat, launches, matmul_rate, synchronize

SLOW_SHARE = 0.6  # of what is left, that making one slow candidate ready may take
LEAST, LEAST_SLOW = 5.0, 30.0  # seconds: with less left nothing more, or slow, is opened

LEAST_DB = 40.0  # of a whole run

Emit = Callable[..., None]


@dataclass(frozen=True)
class Request:
    """The work of a part.

    - `job`: "prepare" exports a model, "machine" measures the GPU itself and its kernels, "stage"
      opens the candidates of a stage at each batch, checks them and times them, "engine" loads one
      that was built for another GPU
    - `models`: a folder of models that were exported before, or empty
    - `done`: batches, and `skipped`: (batch, candidate, precision) that an earlier try dealt with
    """

    job: str
    work: str
    device: str = "cuda"
    stage: str = ""
    models: str = ""
    model: str = ""
    batches: Sequence[int] = ()
    seconds: float = 60.0
    rounds: int = 5
    round_seconds: float = 0.1
    compile_seconds: float = 300.0
    done: Sequence[int] = ()
    skipped: Sequence[Sequence[Any]] = ()


def note(journal: Path, event: str, **values: Any) -> None:
    """Add a line of JSON to a journal, on disk at once."""
    with journal.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"event": event, **values}) + "\n")


@dataclass
class _Group:
    """All candidates of a model at one batch."""

    setting: Any
    request: Request
    emit: Emit
    clock: Clock
    end: float
    runners: dict[tuple[str, str], Runner] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from gpu.parity import Reference

        self._doing("reference", "", "computing in torch")
        self.reference = Reference(self.setting)

    def measure(self, stage: Stage, *, count_launches: bool) -> None:
        """Open, check and time the candidates by turns, so that the first surely have times."""
        for turn in stage.turns:
            opened = [self._open(kind, precision) for kind, precision in turn]
            if not stage.timed:
                self.runners.clear()
            if not any(opened) or not stage.timed:
                continue
            if self.runners.keys() == {key for key in opened if key} or self._left() > LEAST:
                self._heat()
            else:
                for key in filter(None, opened):
                    self._cell(key, absent="no time left")
            if not stage.keep:
                self.runners.clear()
        if count_launches:
            self._launches()
        self._doing("", "", "")

    def _open(self, kind: Kind, precision: str) -> tuple[str, str] | None:
        """Open a candidate and give its name; None if it cannot be timed, and its cell says why."""
        key = (kind.name, precision)
        if [self.setting.size, *key] in self.request.skipped:
            return None
        if self._left() < (LEAST_SLOW if kind.slow else LEAST):
            self._cell(key, absent="no time left")
            return None
        self._doing(*key, "opening it")
        limit = self._left() * SLOW_SHARE
        setting = replace(self.setting, compile_seconds=min(self.request.compile_seconds, limit))
        free, begin = free_bytes(setting.device, tidy=True), self.clock()
        try:
            runner = kind.open(setting, precision)
            runner.start(2)
            runner.wait()
            first = self.clock() - begin
            memory = free - free_bytes(setting.device)
            self._doing(*key, "comparing it with torch")
            found = self._parity(runner, kind.ours, precision)
        except Exception as error:  # whatever a library raises is the answer to what it can do
            self._cell(key, absent=self._reason(error))
            # This raises if the error has cost the GPU's context, and the process ends.
            synchronize(self.setting.device)
            return None
        self._cell(key, first_s=first, memory_mb=memory / 1e6, **found)
        if found.get("absent"):
            return None
        self.runners[key] = runner
        return key

    def _parity(self, runner: Runner, ours: bool, precision: str) -> dict[str, Any]:
        limits = self.reference.bounds(precision)
        error = self.reference.step_error(runner)
        found: dict[str, Any] = {"step_error": _finite(error), "step_limit": limits.step_error}
        if not error <= limits.step_error:
            return {**found, "absent": f"INVALID: {error:.2g} from torch"}
        if ours and runner.free:
            psnr = self.reference.psnr(runner)
            found |= {"psnr": _finite(min(psnr, 1e3)), "psnr_ran": True}  # JSON has no infinity
            if self.setting.case.trained or precision == "fp32":  # else it proves little
                found["psnr_limit"] = max(limits.psnr, LEAST_DB)
        return found

    def _heat(self) -> None:
        names = {"|".join(key): key for key in self.runners}
        timed = heat(
            {name: self.runners[key] for name, key in names.items()},
            rounds=self.request.rounds,
            seconds=self.request.round_seconds,
            clock=self.clock,
            on_candidate=lambda name: self._doing(*names[name], "timing it"),
        )
        self._doing("", "", "timing all candidates")
        for name, times in timed.items():
            self._cell(names[name], **times)

    def _launches(self) -> None:
        for key, runner in self.runners.items():
            if self._left() < LEAST:
                return
            self._doing(*key, "counting its launches")
            try:
                host, kernels = launches(runner, self.setting.device)
            except Exception as error:
                print(f"{key}: launches not counted: {error}", file=sys.stderr)
                continue
            self._cell(key, launches=host, kernels=kernels)

    def _reason(self, error: Exception) -> str:
        ours = isinstance(error, DifftoolError)
        said = error.message if ours else f"{type(error).__name__}: {first_line(error)}"
        return said.replace(f"{self.request.work}/", "")  # results name no path of a machine

    def _cell(self, key: tuple[str, str], **values: Any) -> None:
        self.emit("cell", **self._named(*key), **values)

    def _doing(self, candidate: str, precision: str, what: str) -> None:
        self.emit("doing", **self._named(candidate, precision), what=what)

    def _named(self, candidate: str, precision: str) -> dict[str, Any]:
        return {"batch": self.setting.size, "candidate": candidate, "precision": precision}

    def _left(self) -> float:
        return self.end - self.clock()


def run_part(request: Request, emit: Emit, clock: Clock = time.perf_counter) -> None:
    """Do a request; whatever it finds goes to `emit`."""
    end = clock() + request.seconds
    if request.job == "machine":
        _machine(request, emit, clock)
        return
    if request.job == "engine":
        emit("engine", **load_engine(Path(request.models or request.work)))
        return
    prepared = _prepared(request)
    if request.job == "prepare":
        flops = _flops(prepared.checkpoint.network, prepared.spec.shape)
        emit("model", flops=flops, program=prepared.program.name)
        for precision in HALVES:
            in_precision(prepared.bundle, precision, prepared.folder)
        return
    waiting = [size for size in request.batches if size not in request.done]
    for index, size in enumerate(waiting):
        # What is left is shared by the batches that are left.
        until = clock() + (end - clock()) / (len(waiting) - index)
        setting = replace(prepared, size=size, device=request.device)
        group = _Group(setting, request, emit, clock, until)
        group.measure(STAGES[request.stage], count_launches=index == len(waiting) - 1)
        emit("done", batch=size)
        del group
        gc.collect()


def _prepared(request: Request) -> Any:
    """Open the model that `pack` exported, or export it."""
    from common.models import CASES, TINY, Setting, prepare

    from difftool.bundle import read_bundle
    from difftool.train import load_checkpoint

    case, work = {**CASES, TINY.name: TINY}[request.model], Path(request.work)
    packed = Path(request.models) / request.model
    if not request.models or not packed.is_dir():
        return prepare(case, work, torchscript=True)
    checkpoint, bundle = load_checkpoint(packed / "checkpoint"), read_bundle(packed / "bundle")
    (work / request.model).mkdir(parents=True, exist_ok=True)
    return Setting(case, checkpoint, bundle, work / request.model)


def _machine(request: Request, emit: Emit, clock: Clock) -> None:
    from gpu.parity import noise_ulps

    size = MATMUL if request.device != "cpu" else 64
    rate = matmul_rate(request.device, clock, size)
    try:
        emit("machine", matmul=rate, ulps=noise_ulps())
    except DifftoolError as error:
        emit("machine", matmul=rate, no_ulps=error.message)


def _flops(network: Any, shape: tuple[int, ...]) -> int:
    """Count the FLOPs of the network for one sample: a multiply-add is two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, *shape), network.condition(torch.zeros(1)))
    return int(counter.get_total_flops())


def _finite(value: float) -> float | None:
    return value if value - value == 0 else None


def parse_request(text: str) -> tuple[Request, Path]:
    """Read what `gpu.main` wrote for a process: a request, and where its journal is."""
    values = json.loads(text)
    journal = Path(values.pop("journal"))
    return Request(**values), journal


if __name__ == "__main__":
    found, journal = parse_request(sys.argv[1])
    run_part(found, partial(note, journal))
