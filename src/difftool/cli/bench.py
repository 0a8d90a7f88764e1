"""difftool bench: measure how fast a bundle runs here, alone and against peers."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from typer import Exit, Option

from difftool.cli import options
from difftool.cli.console import progress, report
from difftool.diffusion import SamplerCall
from difftool.errors import DifftoolError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    from difftool.bundle import Bundle
    from difftool.diffusion import Program
    from difftool.runtime import Backend, Timing, Verification
    from difftool.verify import Side

    Opening = Callable[..., Backend]  # `open_backend`, given all but name and precision

EXAMPLES = """\b
Examples:
  difftool bench
  difftool bench bundle --backend openvino --precision bf16 --batch 1,4,16
  difftool bench bundle --against torch,openvino --checkpoint runs/digits --json
"""

_SIZES: Final = "1,2,4,8,16,32"
_GATE_STEPS: Final = 20  # of the runs whose outputs are compared
_VERDICT: Final = ("passed", "step_error", "step_tolerance", "psnr_db", "psnr_tolerance_db")
_HEADINGS: Final = (
    *("batch", "on", "first ms", "ms/step", "quartiles", "p90", "p99"),
    *("ms/image", "images/s", "ratio"),
)


def bench(
    model: options.Model = options.DEFAULT_MODEL,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    eta: options.Eta = None,
    assignments: options.Assignments = None,
    backend: options.Backend = None,
    precision: options.Precision = "fp32",
    device: options.Device = 0,
    against: Annotated[
        str | None,
        Option(
            metavar="NAMES",
            help="Peers to measure too, in turns: torch (which needs --checkpoint, or step.ts in "
            "the bundle), and any backend, such as openvino or openvino:bf16.",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        Option(
            metavar="CHECKPOINT",
            help="Run or checkpoint that the bundle was exported from; outputs are then compared "
            "with PyTorch.",
        ),
    ] = None,
    batch: Annotated[
        str, Option(metavar="SIZES", help="Batch sizes to measure; the best is one of them.")
    ] = _SIZES,
    rounds: Annotated[
        int, Option(metavar="COUNT", help="Turns of each side, after a first that is not counted.")
    ] = 7,
    threads: options.Threads = None,
    trust: options.Trust = None,
    json: options.Json = False,
) -> None:
    """Measure the time of a step, and find the best max_batch.

    First all sides run a program on the same noise, and their outputs are compared with PyTorch's,
    if --checkpoint is given, or else with those of step.onnx in fp32 on ONNX Runtime. A side that
    exceeds the tolerance of its precision is INVALID: it gets no figures, and the exit code is 1.
    A ratio is a peer's time divided by that of the model. AOTInductor packages of the bundle that
    may run here are peers unasked.
    """
    from difftool.runtime import (
        best_size,
        measure,
        on_device,
        open_backend,
        open_bundle,
        peak_memory,
        split_name,
    )
    from difftool.verify import EXACT, TORCH, Report, Side, device_beside

    sizes = _sizes(batch)
    trusted = tuple(trust or ())
    bundle = open_bundle(model)
    asked = options.sampler_call(sampler, steps, eta, assignments)
    program = options.choose_program(bundle, asked)
    open_on = partial(open_backend, bundle, threads=threads, trusted=trusted)
    _, precision = split_name(backend, precision)
    own = Side(open_on(backend, precision=precision, device=device), precision)

    def open_named(name: str, precision: str = "fp32") -> "Backend":
        return open_on(name, precision=precision, device=device_beside(name, device))

    open_torch = partial(_torch, bundle, checkpoint, threads, open_named)
    names = (part.strip() for part in (against or "").split(","))
    peers = [_peer(name, open_named, open_torch) for name in names if name]
    peers += _packages(bundle, open_named, (own, *peers))
    sides = {str(side): side for side in (own, *peers)}
    reference = next((peer for peer in peers if peer.backend.name == TORCH), None)
    if reference is None:
        reference = Side(open_named(EXACT) if checkpoint is None else open_torch(), "fp32")

    short = _short(bundle, asked, program)
    parity = _parity(sides, reference, short, bundle, quiet=json)
    verdicts = {}
    for name, result in parity.items():
        figures = Report(bundle, sides[name], reference, result).to_dict()
        verdicts[name] = {key: figures[key] for key in _VERDICT}
    backends = {name: side.backend for name, side in sides.items()}
    timings = [measure(backends, program, bundle.spec, size=n, rounds=rounds) for n in sizes]
    valid = {name: result.passed for name, result in parity.items()}
    subject = str(own)
    best = best_size([found[subject] for found in timings]) if valid[subject] else None
    record = {
        "model": model,
        "program": program.name,
        "nfe": program.nfe,
        "backend": own.backend.name,
        "precision": precision,
        **on_device(own.backend),
        "threads": threads or "all",
        "rounds": rounds,
        "parity": {"reference": str(reference), "program": short.name, **verdicts},
        "results": [
            _result(name, subject, found, program.nfe, valid=valid)
            for found in timings
            for name in sides
        ],
        "best_max_batch": best,
        "peak_memory_mib": peak_memory(
            model,
            backend=backend,
            precision=precision,
            threads=threads,
            device=device,
            size=best or sizes[0],
            trust=trusted,
        ),
    }
    if json:
        report(record, as_json=True)
    else:
        _print(record)
    if not all(valid.values()):
        raise Exit(1)


def _sizes(text: str) -> list[int]:
    sizes = options.numbers(text)
    if not sizes or 0 in sizes:
        raise UsageError(f"--batch {text!r} names no sizes", f"write them like {_SIZES}")
    return sorted(set(sizes))


def _peer(name: str, open_named: "Opening", open_torch: "Callable[[], Backend]") -> "Side":
    from difftool.runtime import split_name
    from difftool.verify import TORCH, Side

    if name == "diffusers":
        raise UsageError("difftool bench does not run diffusers", "run benchmarks/against_peers.py")
    if name == TORCH:
        return Side(open_torch(), "fp32")
    kind, precision = split_name(name, "fp32")
    return Side(open_named(kind, precision=precision), precision)


def _packages(bundle: "Bundle", open_named: "Opening", sides: "Iterable[Side]") -> "list[Side]":
    """Open the packages of a bundle that may run here, apart from those that are sides already."""
    from difftool.bundle import PRECISIONS, package_name
    from difftool.runtime import split_name
    from difftool.verify import Side

    kind = "aot-inductor"
    taken = {split_name(side.backend.name, side.precision) for side in sides}
    found = []
    for precision in PRECISIONS:
        if package_name(precision) in bundle.manifest.files and (kind, precision) not in taken:
            with suppress(DifftoolError):  # it is not trusted, or not for this machine
                found.append(Side(open_named(kind, precision=precision), precision))
    return found


def _torch(
    bundle: "Bundle", checkpoint: Path | None, threads: int | None, open_named: "Opening"
) -> "Backend":
    """Open the checkpoint in PyTorch, or else the bundle's TorchScript."""
    if checkpoint is None:
        try:
            return open_named("torchscript")
        except MissingDependencyError as error:
            raise UsageError(
                "torch needs the checkpoint that the bundle was exported from",
                "give --checkpoint RUN",
            ) from error

    import torch

    from difftool.verify import Eager, load_origin

    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load_origin(bundle, checkpoint)
    return Eager(loaded.network, loaded.spec, bundle.features)


def _short(bundle: "Bundle", asked: SamplerCall, program: "Program") -> "Program":
    """Return the same program in fewer steps, if the sampler has one."""
    for steps in (_GATE_STEPS, len(bundle.spec.schedule)):
        if steps < program.nfe:
            shorter = SamplerCall(asked.name, {**asked.arguments, "steps": steps})
            with suppress(UsageError):  # not every sampler takes every number of steps
                return options.choose_program(bundle, shorter)
    return program


def _parity(
    sides: "Mapping[str, Side]",
    reference: "Side",
    program: "Program",
    bundle: "Bundle",
    *,
    quiet: bool,
) -> "dict[str, Verification]":
    from difftool.verify import verify_sides

    done, total = count(1), len(sides) * len(program)
    with progress(quiet=quiet) as tell:

        def on_row(*_: int) -> None:
            tell(next(done), total)

        return {
            name: verify_sides(bundle, side, reference, program, n=1, on_row=on_row)
            for name, side in sides.items()
        }


def _result(
    name: str, subject: str, found: "Mapping[str, Timing]", nfe: int, *, valid: Mapping[str, bool]
) -> dict[str, Any]:
    """Return the figures of one side at one batch size; none if its outputs are INVALID."""
    import numpy as np

    from difftool.runtime import ratios

    timing = found[name]
    result: dict[str, Any] = {"batch": timing.size, "on": name}
    if not valid[name]:
        return {**result, "verdict": "INVALID"}
    result |= {
        "verdict": "valid",
        "first_ms": timing.first_ms,
        "ms_per_step": timing.quantiles(),
        "ms_per_image": timing.quantiles(nfe / timing.size),
        "images_per_second": timing.images_per_second(nfe),
        "round_ms_per_step": timing.round_ms.tolist(),
    }
    if name != subject and valid[subject]:
        result["ratio"] = float(np.median(ratios(timing, found[subject])))
    return result


def _print(record: Mapping[str, Any]) -> None:
    shown = ("model", "program", "nfe", "device", "cuda_graphs", "threads", "rounds", "parity")
    report({key: record[key] for key in shown if key in record}, as_json=False)
    rows = [_HEADINGS, *(_cells(result) for result in record["results"])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    peak = record["peak_memory_mib"]
    memory = None if peak is None else f"{peak:.0f} MiB"
    report({"best max_batch": record["best_max_batch"], "peak memory": memory}, as_json=False)


def _cells(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a row of the table."""
    place = str(result["batch"]), result["on"]
    if result["verdict"] == "INVALID":
        return *place, "INVALID", *[""] * (len(_HEADINGS) - 3)
    step, image = result["ms_per_step"], result["ms_per_image"]
    return (
        *place,
        f"{result['first_ms']:.4g}",
        f"{step['median']:.4g}",
        f"{step['q1']:.4g} .. {step['q3']:.4g}",
        f"{step['p90']:.4g}",
        f"{step['p99']:.4g}",
        f"{image['median']:.4g}",
        f"{result['images_per_second']:.4g}",
        f"{result['ratio']:.3g}" if "ratio" in result else "",
    )
