"""Add int8 to a bundle: calibrate, choose layers, measure, then refuse or write."""

import importlib.metadata
import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from difftool import data as datasets
from difftool.bundle import STEP, Bounds, Bundle, listed_files, read_bundle, step_name
from difftool.bundle.amend import with_files
from difftool.compile.quantization.calibration import (
    Calibration,
    Floats,
    find_ranges,
    from_data,
    from_trajectory,
    samples_for,
    threads_for,
)
from difftool.compile.quantization.graph import in_8_bits, layers, titles
from difftool.compile.quantization.sensitivity import failing, outputs, shares, squared_errors
from difftool.diffusion.program import Program
from difftool.errors import CheckFailed, ResourceError, UsageError
from difftool.files import atomic_directory, destination, temporary_folder
from difftool.owned import Listing
from difftool.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu
from difftool.runtime.comparison import OnRow, Verification, compare
from difftool.runtime.shipped import open_bundle

REPORT: Final = "quantize.json"
INT8: Final = step_name("int8")

# A row's error with the calibrated ranges may be at most this many times its error with ranges of
# the tested run itself. On the shipped models the ratio is 1.1 to 1.4 if the calibration covers a
# whole run, and 4 to 18 if it covers only the first or the last row.
RATIO: Final = 1.75
# The bounds of int8 in `verify`, as multiples of the errors measured here: twice the error of
# samples, and three times that of a row. A row's varies more: it is the error of a single number.
SLACK, STEP_SLACK = 2.0, 3.0

_COMPARED: Final = 2  # samples of the run that is reported
_PACKAGES: Final = ("difftool", "onnxruntime", "onnx")


@dataclass(frozen=True)
class Quantized:
    """A bundle with int8, and the report that it contains as JSON."""

    bundle: Bundle
    report: dict[str, Any]

    def layers(self, precision: str) -> list[str]:
        """Return the layers of the network that compute in "int8", or those kept in "fp32"."""
        found = self.report["layers"].items()
        return [name for name, layer in found if layer["precision"] == precision]


def quantize(
    bundle: Bundle | Path | str,
    *,
    out: Path | str | None = None,
    data: str | None = None,
    program: Program | None = None,
    seed: int = 0,
    force: bool = False,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Quantized:
    """Add a step graph in int8 for CPUs to a bundle, and a report on it.

    A program runs in fp32 to find the range of each value. Layers with too large a share of the
    error stay in fp32. The report has the errors of the bundle's own program with another seed.
    The result depends only on the bundle and the arguments; no choice depends on measured time.
    This is post-training quantization as in Li et al. 2023 (Q-Diffusion), calibrated over all rows.

    Args:
        bundle: a bundle, its folder, or the name of a shipped model.
        out: write a bundle with int8 there; by default int8 is added to the bundle itself.
        data: calibrate with this data, which is read as `difftool.data.load` does, under the noise
            of the program's rows; by default with the model's own run of the program.
        program: the program to calibrate for; by default the bundle's own.
        seed: seed of the samples that are run.
        force: replace the bundle at `out`, or int8 in the bundle.
        on_step: called with the number of steps done and the total.

    Raises:
        UsageError: int8 or `out` exists already, without `force`; or the network has no layer
            between its first and its last.
        CheckFailed: the calibration does not cover the program: the error of some row is RATIO
            times its error with ranges of the tested run itself, or more.
        ResourceError: the bundle's folder or `out` cannot be written to.

    Examples:
        >>> made = difftool.compile.quantize("digits.bundle", out="int8.bundle")
        >>> "step.int8.onnx" in made.bundle.manifest.files
        True
    """
    opened = open_bundle(bundle)
    replace = listed_files if force or out is None else None
    target = _target(opened, out, force, replace)
    program = program or opened.default_program()
    model = onnx.load_from_string(opened.graph(STEP).data)
    inner = layers(model)
    if not inner:
        raise UsageError(
            f"the network of {opened.path} has no layer between its first and its last",
            "stay with fp32, which is fast enough for so small a network",
        )
    clean = None if data is None else _read(data, opened, samples_for(program), seed)
    total = 2 * len(program) + len(inner) + len(opened.default_program())
    done = itertools.count(1)

    def step(*_: int) -> None:
        on_step(next(done), total)

    own = from_trajectory(opened, program, seed=seed, on_step=step)
    calibration = own if clean is None else from_data(opened, program, clean, str(data), seed=seed)
    ranges = find_ranges(model, calibration.feeds)
    found = shares(model, ranges, inner, own.feeds, step)
    kept = failing(found)
    chosen = [name for name in inner if name not in kept]
    quantized = in_8_bits(model, ranges, chosen)
    onnx.checker.check_model(quantized)
    held_out = from_trajectory(opened, program, seed=seed + 1, on_step=step)
    ratios = require_covered(model, quantized, chosen, held_out)
    report: dict[str, Any] = {
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "calibration": {
            "source": "self" if data is None else data,
            "program": program.name,
            "rows": len(calibration.rows),
            "samples": calibration.samples,
            "seed": seed,
        },
        "layers": {
            title: {
                "precision": "int8" if name in chosen else "fp32",
                "share": _short(found[name]) if name in found else None,
            }
            for name, title in titles(model).items()
        },
        "over_own_ranges": {
            "worst": float(max(ratios)),
            "row": held_out.rows[int(np.argmax(ratios))],
            "limit": RATIO,
        },
    }
    with temporary_folder() as folder:
        shutil.copytree(opened.path, folder / "bundle")
        staged = with_files(read_bundle(folder / "bundle"), {INT8: quantized.SerializeToString()})
        result = _compared(staged, opened, seed + 1, step)
        bounds = bounds_for(result)
        report |= {"errors": _errors_record(result, seed + 1), "bounds": bounds.model_dump()}
        text = json.dumps(report, indent=1, allow_nan=False) + "\n"
        staged = with_files(staged, {REPORT: text.encode()}, bounds={"int8": bounds})
        with atomic_directory(target, replace=replace) as new:
            shutil.copytree(staged.path, new, dirs_exist_ok=True)
    return Quantized(read_bundle(target), report)


def _read(source: str, bundle: Bundle, n: int, seed: int) -> Floats:
    """Return n clean samples of data, float32 [n, *S], in the model's size and data range."""
    spec = bundle.spec
    images = len(spec.shape) == 3
    items = datasets.load(
        source,
        size=spec.shape[1] if images and spec.shape[1] == spec.shape[2] else None,
        mode=("L" if spec.shape[0] == 1 else "RGB") if images else None,
        seed=seed,
    ).values
    chosen = datasets.batch_indices(seed, 0, n, np.arange(n), len(items))
    return datasets.prepared(items[chosen], spec.data_range)


def require_covered(
    model: onnx.ModelProto, quantized: onnx.ModelProto, chosen: Sequence[str], runs: Calibration
) -> list[float]:
    """Return each row's error over its error with ranges of these runs. CheckFailed at RATIO."""
    exact = outputs(model, runs.feeds)
    errors = squared_errors(quantized, runs.feeds, exact)
    own = squared_errors(
        in_8_bits(model, find_ranges(model, runs.feeds), chosen), runs.feeds, exact
    )
    tiny = np.finfo(np.float64).tiny
    ratios = np.sqrt((errors + tiny) / (own + tiny))
    worst = int(np.argmax(ratios))
    if not ratios[worst] < RATIO:
        raise CheckFailed(
            f"int8 fails at row {runs.rows[worst]} of {len(runs.program)}: its error is "
            f"{ratios[worst]:.1f} times that with ranges of the whole run, more than {RATIO}",
            "calibrate over the whole program, or stay with fp32",
        )
    return ratios.tolist()


def _target(bundle: Bundle, out: Path | str | None, force: bool, replace: Listing | None) -> Path:
    """Return the folder to write, or raise the error that writing it would end in."""
    if out is None and INT8 in bundle.manifest.files and not force:
        raise UsageError(
            f"{bundle.path} has int8 already", "replace it with `force`, or give `out`"
        )
    target = destination(bundle.path if out is None else out, replace=replace)
    parent = next(folder for folder in target.parents if folder.exists())
    if not os.access(parent, os.W_OK) or (target.exists() and not os.access(target, os.W_OK)):
        raise ResourceError(f"cannot write {target}", "choose another folder with `out`")
    return target


def _compared(quantized: Bundle, bundle: Bundle, seed: int, on_row: OnRow) -> Verification:
    """Compare int8 with fp32 over the bundle's own program."""
    threads = threads_for(bundle.manifest.files[STEP].size)
    return compare(
        OnnxRuntimeCpu(quantized, threads=threads, precision="int8"),
        OnnxRuntimeCpu(bundle, threads=threads),
        bundle.default_program(),
        bundle.spec,
        _COMPARED,
        seed,
        on_row,
    )


def bounds_for(result: Verification) -> Bounds:
    """Return the measured errors with their slack; SLACK takes 20 log10 SLACK dB from the PSNR."""
    psnr = min(result.psnr, 120.0)  # the PSNR of two equal runs is infinite
    return Bounds(
        step_error=max(STEP_SLACK * result.step_error, 1e-6), psnr=psnr - 20 * math.log10(SLACK)
    )


def _errors_record(result: Verification, seed: int) -> dict[str, Any]:
    """Return each row's largest and RMS error against fp32, over the largest |x|."""
    return {
        "program": result.program.name,
        "samples": result.samples,
        "seed": seed,
        "step_error": result.step_error,
        "psnr_db": result.psnr if math.isfinite(result.psnr) else None,
        "max": [_short(error) for error in result.errors.tolist()],
        "rms": [_short(error) for error in result.rms.tolist()],
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")
