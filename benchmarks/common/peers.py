"""The candidates on a CPU: this runtime, and its peers, which run the same network."""

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np

from common.candidates import BF16, COMPILE, EAGER, INT8, OURS, PIPELINE, PLAIN, Runner, Unavailable
from common.in_diffusers import pipeline_runner
from common.inside_torch import jit_compiled
from common.models import Setting, short_program
from common.sessions import options, session
from common.timing import deadline, repeated
from difftool import Bundle
from difftool.bundle import read_bundle, step_name
from difftool.compile import quantize
from difftool.errors import DifftoolError
from difftool.runtime import Backend, Draws, Reference, open_backend, run
from difftool.verify import Eager

Floats = np.ndarray
Evaluate = Callable[[dict[str, Floats]], Floats]  # of inputs by their names

# Of a step's x; as in `difftool verify`. A candidate that is further off computes something else.
TOLERANCES = {"bf16": 3e-2, "int8": 1e-1}
FP32_TOLERANCE = 1e-4


def torch_compile(setting: Setting, compiler: Callable[..., Any] = jit_compiled) -> Runner:
    """Compile the step module for this batch; Unavailable if that takes longer than is allowed."""
    compiled = compiler(slots=setting.program.history)
    network = setting.checkpoint.network
    runner = loop_runner(Eager(network, setting.spec, compiled=compiled), setting)
    try:
        with deadline(setting.compile_seconds):
            runner.steps(1)
    except TimeoutError as error:
        raise Unavailable(f"not compiled within {setting.compile_seconds:.0f} s") from error
    return runner


def onnxruntime_plain(setting: Setting) -> Runner:
    """Open ONNX Runtime on network(x, timestep): nothing is sampled, only evaluated."""
    graph = session(setting.plain_graph(), options(setting.threads))
    taken = [node.name for node in graph.get_inputs()]
    return _evaluations(lambda inputs: graph.run(None, inputs)[0], taken, setting)


def openvino_plain(setting: Setting, hint: str) -> Runner:
    """Compile the same graph in OpenVINO for this batch, in the precision that is named."""
    try:
        import openvino
    except ImportError as error:
        raise Unavailable("openvino is not installed") from error
    core = openvino.Core()
    model = core.read_model(setting.plain_graph())
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


def difftool(setting: Setting, precision: str, name: str | None = None) -> Runner:
    """Open this runtime, on the backend that it chooses by itself if none is named."""
    bundle = quantized(setting) if precision == "int8" else setting.bundle
    try:
        backend = open_backend(bundle, name, threads=setting.threads, precision=precision)
        return loop_runner(backend, setting)
    except DifftoolError as error:
        raise Unavailable(str(error)) from error


CANDIDATES: dict[str, Callable[[Setting], Runner]] = {
    OURS: lambda setting: difftool(setting, "fp32"),
    BF16: lambda setting: difftool(setting, "bf16", "openvino"),
    INT8[0]: lambda setting: difftool(setting, "int8"),
    INT8[1]: lambda setting: difftool(setting, "int8", "openvino"),
    PIPELINE: pipeline_runner,
    EAGER: lambda setting: loop_runner(reference(setting), setting),
    COMPILE: torch_compile,
    PLAIN[0]: onnxruntime_plain,
    PLAIN[1]: lambda setting: openvino_plain(setting, "f32"),
    PLAIN[2]: lambda setting: openvino_plain(setting, "bf16"),
}


def tolerance(name: str, setting: Setting) -> float:
    """Say how far a candidate's step may be from PyTorch's; in int8 the bundle may have a bound."""
    if "int8" in name:
        bounds = read_bundle(setting.bundle.path).manifest.bounds
        return bounds["int8"].step_error if "int8" in bounds else TOLERANCES["int8"]
    return next((limit for key, limit in TOLERANCES.items() if key in name), FP32_TOLERANCE)


def reference(setting: Setting) -> Eager:
    """Open PyTorch, whose outputs count."""
    return Eager(setting.checkpoint.network, setting.spec, setting.bundle.features)


def quantized(setting: Setting) -> Bundle:
    """Add int8 to the bundle, once."""
    bundle = read_bundle(setting.bundle.path)
    if step_name("int8") in bundle.manifest.files:
        return bundle
    # A run that passes all noise levels, or 100 of them if a sampler may leave some out.
    levels = len(bundle.spec.schedule)
    steps = min(100, levels) if bundle.spec.cond == "timestep" else levels
    try:
        return quantize(bundle, program=short_program(bundle, steps)).bundle
    except DifftoolError as error:
        raise Unavailable(f"difftool quantize failed: {error}") from error


def loop_runner(backend: Backend, setting: Setting) -> Runner:
    """Run the loop of `Model.sample` on a backend, from the first row of the default program."""
    batch = backend.batch(setting.program, setting.size)
    draws = Draws(0, np.arange(setting.size), setting.spec.shape)

    def steps(count: int) -> None:
        deque(islice(run(batch, setting.program, draws), count), maxlen=0)

    return Runner(batch, steps, most=len(setting.program))


def _evaluations(evaluate: Evaluate, taken: list[str], setting: Setting) -> Runner:
    """Run a bare network again and again on one batch; it is compared through steps made of it."""
    spec, program = setting.spec, setting.program

    def inputs(x: Floats, timestep: Floats) -> dict[str, Floats]:
        given = {"x": x, "timestep": timestep}
        return {name: given[name].astype(np.float32) for name in taken}

    def network(x: Floats, cond: Floats) -> Floats:
        return evaluate(inputs(x, cond)).astype(np.float64)

    x = Draws(0, np.arange(setting.size), spec.shape).normal(0)
    fed = inputs(x, np.full(setting.size, program.conds[len(program.conds) // 2]))
    batch = Reference(network, spec.shape).batch(program, setting.size)
    return Runner(batch, lambda count: repeated(lambda: evaluate(fed), count)())
