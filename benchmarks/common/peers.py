"""The candidates on a CPU: this runtime, and its peers, which run the same network."""

import contextlib
import io
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np

from common import inside
from common.candidates import BF16, COMPILE, EAGER, INT8, OURS, PIPELINE, PLAIN, Runner, Unavailable
from common.in_diffusers import pipeline_runner
from common.inside_torch import Eager, jit_compiled
from common.models import Prepared, Setting
from common.sessions import options, session
from common.timing import deadline, repeated

Floats = np.ndarray
Evaluate = Callable[[dict[str, Floats]], Floats]  # of inputs by their names

# Of a step's x; as in `difftool verify`. A candidate that is further off computes something else.
TOLERANCES = {"bf16": 3e-2, "int8": 1e-1}
FP32_TOLERANCE = 1e-4


def torch_eager(setting: Setting) -> Runner:
    """Open the step module in PyTorch: it is spared the time embedding, as this runtime is."""
    return loop_runner(reference(setting.prepared), setting)


def torch_compile(setting: Setting, compiler: Callable[..., Any] = jit_compiled) -> Runner:
    """Compile the step module for this batch; Unavailable if that takes longer than is allowed."""
    prepared = setting.prepared
    compiled = compiler(slots=setting.program.history)
    runner = loop_runner(
        Eager(prepared.checkpoint.network, prepared.spec, compiled=compiled), setting
    )
    try:
        with deadline(setting.compile_seconds):
            runner.steps(1)
    except TimeoutError as error:
        raise Unavailable(f"not compiled within {setting.compile_seconds:.0f} s") from error
    return runner


def onnxruntime_plain(setting: Setting) -> Runner:
    """Open ONNX Runtime on network(x, timestep): nothing is sampled, only evaluated."""
    graph = session(setting.prepared.plain_graph(), options(setting.threads))
    taken = [node.name for node in graph.get_inputs()]
    return _evaluations(lambda inputs: graph.run(None, inputs)[0], taken, setting)


def openvino_plain(setting: Setting, hint: str) -> Runner:
    """Compile the same graph in OpenVINO for this batch, in the precision that is named."""
    try:
        import openvino
    except ImportError as error:
        raise Unavailable("openvino is not installed") from error
    core = openvino.Core()
    model = core.read_model(setting.prepared.plain_graph())
    taken = [port.get_any_name() for port in model.inputs]
    shape = [setting.size, *setting.spec.shape]
    model.reshape(dict(zip(taken, (shape, [setting.size]), strict=False)))
    settings = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    if setting.threads:
        settings["INFERENCE_NUM_THREADS"] = setting.threads
    compiled = core.compile_model(model, "CPU", settings)
    if compiled.get_property("INFERENCE_PRECISION_HINT").to_string() != hint:
        raise Unavailable(f"OpenVINO has no {hint} on this CPU")
    request = compiled.create_infer_request()
    return _evaluations(lambda inputs: next(iter(request.infer(inputs).values())), taken, setting)


def difftool(setting: Setting, precision: str, backend: str | None = None) -> Runner:
    """Open this runtime, on the backend that it chooses by itself if none is named."""
    bundle = quantized(setting.prepared) if precision == "int8" else setting.bundle
    try:
        opened = inside.open_backend(bundle, backend, threads=setting.threads, precision=precision)
        return loop_runner(opened, setting)
    except inside.DifftoolError as error:
        raise Unavailable(str(error)) from error


CANDIDATES: dict[str, Callable[[Setting], Runner]] = {
    OURS: lambda setting: difftool(setting, "fp32"),
    BF16: lambda setting: difftool(setting, "bf16", "openvino"),
    INT8[0]: lambda setting: difftool(setting, "int8"),
    INT8[1]: lambda setting: difftool(setting, "int8", "openvino"),
    PIPELINE: pipeline_runner,
    EAGER: torch_eager,
    COMPILE: torch_compile,
    PLAIN[0]: onnxruntime_plain,
    PLAIN[1]: lambda setting: openvino_plain(setting, "f32"),
    PLAIN[2]: lambda setting: openvino_plain(setting, "bf16"),
}


def tolerance(name: str, prepared: Prepared) -> float:
    """Say how far a candidate's step may be from PyTorch's; in int8 the bundle may have a bound."""
    if "int8" in name:
        bounds = inside.read_bundle(prepared.bundle.path).manifest.bounds
        return bounds["int8"].step_error if "int8" in bounds else TOLERANCES["int8"]
    return next((limit for key, limit in TOLERANCES.items() if key in name), FP32_TOLERANCE)


def reference(prepared: Prepared) -> Eager:
    """Open PyTorch, whose outputs count."""
    return Eager(prepared.checkpoint.network, prepared.spec, prepared.bundle.features)


def quantized(prepared: Prepared) -> inside.Bundle:
    """Add int8 to the bundle, once."""
    bundle = inside.read_bundle(prepared.bundle.path)
    if inside.step_name("int8") in bundle.manifest.files:
        return bundle
    # A run that passes all noise levels, or 100 of them if a sampler may leave some out.
    levels = len(bundle.spec.schedule)
    steps = min(100, levels) if bundle.spec.cond == "timestep" else levels
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = inside.command_line(["quantize", str(bundle.path), "--steps", str(steps)])
    if code:
        raise Unavailable(f"difftool quantize failed: {' '.join(said.getvalue().split())[:200]}")
    return inside.read_bundle(prepared.bundle.path)


def loop_runner(backend: inside.Backend, setting: Setting) -> Runner:
    """Run the loop of `Model.sample` on a backend, from the first row of the default program."""
    batch = backend.batch(setting.program, setting.size)
    draws = inside.Draws(0, np.arange(setting.size), setting.spec.shape)

    def steps(count: int) -> None:
        deque(islice(inside.run(batch, setting.program, draws), count), maxlen=0)

    return Runner(batch, steps, most=len(setting.program))


def _evaluations(evaluate: Evaluate, taken: list[str], setting: Setting) -> Runner:
    """A bare network, run again and again on one batch; compared through steps made of it."""
    spec, program = setting.spec, setting.program
    x = inside.noise.normal(0, 0, np.arange(setting.size), spec.shape)
    timestep = np.full(setting.size, program.conds[len(program.conds) // 2], np.float32)
    constant = {"x": x, "timestep": timestep}
    fed = {name: constant[name] for name in taken}

    def network(x: Floats, cond: Floats) -> Floats:
        inputs = {"x": x.astype(np.float32), "timestep": cond.astype(np.float32)}
        return evaluate({name: inputs[name] for name in taken}).astype(np.float64)

    batch = inside.Reference(network, spec.shape).batch(program, setting.size)
    return Runner(batch, lambda count: repeated(lambda: evaluate(fed), count)())
