"""Measure what 16 bits do to samples of the shipped models: their PSNR, and the balance of digits.

    python benchmarks/half_quality.py --out benchmarks/results

The graphs are those for GPUs. A CPU runs them in float32 that rounds as often (common/rounded.py),
from the same noise as fp32. The PSNR is that of whole runs of the default program. The digits are
those that the shipped extractor sees in more samples of fewer steps; in too few steps annealed
Langevin draws only noise. `--work` keeps samples, so that a run that was stopped goes on.
"""

import hashlib
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from common.inside_torch import in_half, with_files
from common.models import CASES, short_program
from common.report import Figure, finish, parser
from common.rounded import rounded

import difftool
from difftool import Bundle, Program
from difftool.bundle import STEP, read_bundle
from difftool.evaluate import open_extractor

MODELS = [name for name, case in CASES.items() if case.trained]
HALVES = ("fp16", "bf16")
Bundles = dict[str, Bundle]  # by precision
LEAST = 40.0  # dB
STEPS = {"ddpm-mnist": 20, "ncsn-mnist": 190}  # of the samples whose digits count


def main() -> int:
    arguments = parser(__doc__, "out", "work", "threads")
    arguments.add_argument("--model", choices=MODELS, action="append", help="both by default")
    arguments.add_argument("-n", type=int, default=32, help="samples of whole runs")
    arguments.add_argument("--digits", type=int, default=256, help="samples whose digits count")
    options = arguments.parse_args()
    figures: list[Figure] = []
    for name in options.model or MODELS:
        folder = options.work / "half" / name
        bundles = emulated(name, folder)
        spec, whole = bundles["fp32"].spec, bundles["fp32"].default_program()
        short = short_program(bundles["fp32"], STEPS[name])
        whole_runs, many = (
            {p: samples(b, p, program, n, options.threads, folder) for p, b in bundles.items()}
            for program, n in ((whole, options.n), (short, options.digits))
        )
        figures += [*agreement(name, whole_runs, spec), *balance(name, many, spec)]
    setup = {"samples": options.n, "digits": options.digits, "their steps": STEPS}
    return finish("half_quality", figures, options, **setup, seed=0)


def emulated(name: str, folder: Path) -> Bundles:
    """Copy a shipped model for each precision, with a step graph that rounds like it."""
    source = difftool.runtime.open_bundle(name)
    step = onnx.load(source.file(STEP))
    bundles = {"fp32": source}
    for precision in HALVES:
        copy = folder / precision
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source.path, copy)
        graph = rounded(in_half(step, precision)).SerializeToString()
        bundles[precision] = with_files(read_bundle(copy), {STEP: graph})
    return bundles


def samples(
    bundle: Bundle, precision: str, program: Program, n: int, threads: int | None, folder: Path
) -> np.ndarray:
    """Draw samples of a program, or read those that were drawn before."""
    model = difftool.load(bundle, backend="onnxruntime-cpu", threads=threads)
    digest = hashlib.sha256(bundle.read(STEP) + program.name.encode()).hexdigest()[:12]
    kept = folder / f"{precision}-{len(program)}-{n}-{digest}.npy"
    if not kept.is_file():
        np.save(kept.with_suffix(".part.npy"), model.sample(program, n=n, seed=0))
        kept.with_suffix(".part.npy").rename(kept)
    return np.load(kept)


def agreement(
    name: str, drawn: dict[str, np.ndarray], spec: difftool.ModelSpec
) -> Iterator[Figure]:
    """Compare whole runs with fp32."""
    low, high = spec.data_range
    for precision in HALVES:
        error = (drawn[precision] - drawn["fp32"]).reshape(len(drawn["fp32"]), -1)
        each = [psnr(row, high - low) for row in error]
        label = f"{name}, {precision}: PSNR to fp32"
        yield Figure(label, [psnr(error, high - low)], unit="dB", at_least=LEAST)
        yield Figure(f"{label}, sample by sample", each, unit="dB")


def psnr(error: np.ndarray, span: float) -> float:
    """Give the peak signal-to-noise ratio of a difference, in dB."""
    return 10 * math.log10(span**2 / max(float(np.mean(np.square(error, dtype=float))), 1e-20))


def balance(name: str, drawn: dict[str, np.ndarray], spec: difftool.ModelSpec) -> Iterator[Figure]:
    """Compare the digits of samples with those of fp32.

    The limit is the standard deviation of a tenth's share between two sets of other noise.
    """
    extractor = open_extractor("mnist")
    seen = {
        precision: extractor.view(difftool.to_uint8(values, spec)).probabilities.argmax(1)
        for precision, values in drawn.items()
    }
    noise = math.sqrt(2 * 0.1 * 0.9 / len(seen["fp32"]))
    shares = {p: np.bincount(digits, minlength=10) / len(digits) for p, digits in seen.items()}
    for precision in HALVES:
        moved = float(np.abs(shares[precision] - shares["fp32"]).max())
        label = f"{name}, {precision}: largest change of a digit's share"
        yield Figure(label, [moved], at_most=noise)
        same = float((seen[precision] == seen["fp32"]).mean())
        yield Figure(f"{name}, {precision}: samples of the same digit", [same])


if __name__ == "__main__":
    sys.exit(main())
