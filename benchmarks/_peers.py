"""The sides of a comparison: this runtime, and what else runs the same network on a CPU."""

import contextlib
import io
import signal
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _diffusers import NotTheirs, pipeline
from _models import Prepared, few_rows

from difftool.bundle import read_bundle, step_name
from difftool.diffusion import noise
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import DifftoolError
from difftool.export.compiled import jit_compiled
from difftool.export.eager import Eager
from difftool.runtime.backends.reference import Reference
from difftool.runtime.draws import Draws
from difftool.runtime.loop import run
from difftool.runtime.opening import open_backend
from difftool.runtime.protocols import Backend

Floats = np.ndarray


class Unavailable(Exception):
    """A side cannot be measured here; says why."""


@dataclass(frozen=True)
class Setting:
    """What a side is opened for."""

    prepared: Prepared
    size: int
    threads: int | None = None
    compile_seconds: int = 900


@dataclass(frozen=True)
class Side:
    """What takes so many steps of the batch, and what its outputs are compared through.

    `backend` is None where the outputs cannot be had on given noise.
    """

    steps: Callable[[int], object]
    backend: Backend


def diffusers_eager(setting: Setting) -> Side:
    """diffusers' DDPMPipeline, called as its page says."""
    try:
        pipe = pipeline(setting.prepared.checkpoint)
    except ImportError as error:
        raise Unavailable("diffusers is not installed") from error
    except NotTheirs as error:
        raise Unavailable(str(error)) from error

    def steps(count: int) -> None:
        pipe(batch_size=setting.size, num_inference_steps=count, output_type="np")

    def network(x: Floats, cond: Floats) -> Floats:
        with torch.inference_mode():
            found = pipe.unet(torch.from_numpy(x).float(), torch.from_numpy(cond).float())
        return found.sample.double().numpy()

    return Side(steps, Reference(network, setting.prepared.spec.shape))


def torch_eager(setting: Setting) -> Side:
    """The step module in PyTorch: it is spared the time embedding, as this runtime is."""
    return _rows(teacher(setting.prepared), setting)


def torch_compile(setting: Setting) -> Side:
    """The same, compiled for this batch; Unavailable where that takes longer than is allowed."""
    prepared = setting.prepared
    slots = prepared.bundle.default_program().history
    compiled = jit_compiled(prepared.spec, slots=slots)
    side = _rows(Eager(prepared.checkpoint.network, prepared.spec, compiled=compiled), setting)
    try:
        with _deadline(setting.compile_seconds):
            side.steps(1)
    except TimeoutError as error:
        raise Unavailable(f"not compiled within {setting.compile_seconds} s") from error
    return side


def onnxruntime_naive(setting: Setting) -> Side:
    """ONNX Runtime as it comes, on network(x, timestep): nothing is sampled, only evaluated."""
    return _evaluations(plain_session(setting.prepared.naive, setting.threads), setting)


def openvino_naive(setting: Setting, hint: str) -> Side:
    """OpenVINO on the same graph, compiled for this batch, in the precision that is named."""
    try:
        import openvino
    except ImportError as error:
        raise Unavailable("openvino is not installed") from error
    core = openvino.Core()
    model = core.read_model(setting.prepared.naive)
    shape = [setting.size, *setting.prepared.spec.shape]
    model.reshape(dict(zip(_input_names(model), (shape, [setting.size]), strict=False)))
    options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    if setting.threads:
        options["INFERENCE_NUM_THREADS"] = setting.threads
    compiled = core.compile_model(model, "CPU", options)
    if compiled.get_property("INFERENCE_PRECISION_HINT").to_string() != hint:
        raise Unavailable(f"OpenVINO has no {hint} on this CPU")
    request = compiled.create_infer_request()
    taken = _input_names(model)

    def evaluate(x: Floats, timestep: Floats) -> Floats:
        inputs = {"x": x, "timestep": timestep}
        return next(iter(request.infer({name: inputs[name] for name in taken}).values()))

    return _evaluations(evaluate, setting)


def difftool(setting: Setting, precision: str, backend: str | None = None) -> Side:
    """This runtime, on the backend that it chooses by itself where none is named."""
    bundle = setting.prepared.bundle
    if precision == "int8":
        bundle = quantized(setting.prepared)
    try:
        opened = open_backend(bundle, backend, threads=setting.threads, precision=precision)
        return _rows(opened, setting)
    except DifftoolError as error:
        raise Unavailable(str(error)) from error


SIDES: dict[str, Callable[[Setting], Side]] = {
    "difftool fp32": lambda setting: difftool(setting, "fp32"),
    "difftool bf16": lambda setting: difftool(setting, "bf16", "openvino"),
    "difftool int8": lambda setting: difftool(setting, "int8"),
    "difftool int8, openvino": lambda setting: difftool(setting, "int8", "openvino"),
    "diffusers pipeline": diffusers_eager,
    "torch eager": torch_eager,
    "torch.compile": torch_compile,
    "onnxruntime, plain": onnxruntime_naive,
    "openvino f32, plain": lambda setting: openvino_naive(setting, "f32"),
    "openvino bf16, plain": lambda setting: openvino_naive(setting, "bf16"),
}
FP32_PEERS = ("torch eager", "torch.compile", "onnxruntime, plain", "openvino f32, plain")
# Of a step's x; as in difftool.export.verify. A side that is further off computes something else.
TOLERANCES = {"bf16": 3e-2, "int8": 1e-1}
FP32_TOLERANCE = 1e-4


def tolerance(name: str, prepared: Prepared) -> float:
    """How far a side's step may be from PyTorch's; of int8 the bundle's bound, if it has one."""
    if "int8" in name:
        bounds = read_bundle(prepared.bundle.path).manifest.bounds
        return bounds["int8"].step_error if "int8" in bounds else TOLERANCES["int8"]
    return next((limit for key, limit in TOLERANCES.items() if key in name), FP32_TOLERANCE)


def teacher(prepared: Prepared) -> Eager:
    """PyTorch, whose outputs count."""
    return Eager(prepared.checkpoint.network, prepared.spec, prepared.bundle.features)


def step_error(side: Side, prepared: Prepared, size: int) -> float:
    """The largest |difference| from PyTorch over the largest |x|, after single steps.

    They start at states that a perfect run may be in: random data under the noise of the row.
    """
    program = few_rows(prepared.bundle)
    shape = (size, *prepared.spec.shape)
    generator = np.random.default_rng(0)
    low, high = prepared.spec.data_range or (-1.0, 1.0)
    student, exact = (backend.batch(program, size) for backend in (side.backend, teacher(prepared)))
    errors = []
    for row, (alpha, sigma) in enumerate(program.targets[:-1]):
        x0 = generator.uniform(low, high, shape)
        x = (alpha * x0 + sigma * generator.standard_normal(shape)).astype(np.float32)
        drawn = generator.standard_normal(shape, np.float32)
        for batch in (student, exact):
            batch.start(x, row=row)
            batch.step(drawn)
        difference = np.abs(student.x.astype(np.float64) - exact.x).max()
        errors.append(float(difference / np.abs(exact.x).max()))
    return float(np.max(errors))  # NaN, where there is one


def quantized(prepared: Prepared) -> Any:
    """The bundle with its graph in int8, which is made once."""
    from difftool.cli import main

    bundle = read_bundle(prepared.bundle.path)
    if step_name("int8") in bundle.manifest.files:
        return bundle
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(["quantize", str(bundle.path), "--steps", str(_calibration_steps(bundle.spec))])
    if code:
        raise Unavailable(f"difftool quantize failed: {' '.join(said.getvalue().split())[:200]}")
    return read_bundle(prepared.bundle.path)


def _calibration_steps(spec: ModelSpec) -> int:
    """Of a run that passes all noise levels, or 100 of them where a sampler may leave some out."""
    return min(100, len(spec.schedule)) if spec.cond == "timestep" else len(spec.schedule)


def plain_session(path: Path, threads: int | None) -> Callable[[Floats, Floats], Floats]:
    """A graph network(x, timestep) in ONNX Runtime, as it comes."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    if threads is not None:
        settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    taken = [node.name for node in session.get_inputs()]

    def evaluate(x: Floats, timestep: Floats) -> Floats:
        inputs = {"x": x, "timestep": timestep}
        return session.run(None, {name: inputs[name] for name in taken})[0]

    return evaluate


def _rows(backend: Backend, setting: Setting) -> Side:
    """The loop of `Model.sample` on a backend, from the first row of the default program."""
    program, spec = setting.prepared.bundle.default_program(), setting.prepared.spec
    batch = backend.batch(program, setting.size)
    draws = Draws(0, np.arange(setting.size), spec.shape)

    def steps(count: int) -> None:
        deque(islice(run(batch, program, draws), count), maxlen=0)

    return Side(steps, backend)


def _evaluations(evaluate: Callable[[Floats, Floats], Floats], setting: Setting) -> Side:
    """A bare network, run again and again on one batch; compared through steps made of it."""
    spec, program = setting.prepared.spec, setting.prepared.bundle.default_program()
    x, timestep = _one_batch(spec, program, setting.size)

    def steps(count: int) -> None:
        for _ in range(count):
            evaluate(x, timestep)

    def network(x: Floats, cond: Floats) -> Floats:
        return evaluate(x.astype(np.float32), cond.astype(np.float32)).astype(np.float64)

    return Side(steps, Reference(network, spec.shape))


def _one_batch(spec: ModelSpec, program: Program, size: int) -> tuple[Floats, Floats]:
    """A noisy batch, and the cond of the program's middle."""
    cond = program.conds[len(program.conds) // 2]
    return noise.normal(0, 0, np.arange(size), spec.shape), np.full(size, cond, np.float32)


def _input_names(model: Any) -> list[str]:
    return [port.get_any_name() for port in model.inputs]


@contextlib.contextmanager
def _deadline(seconds: int) -> Iterator[None]:
    """TimeoutError in this thread after so many seconds."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
