"""The peers on a GPU that need PyTorch: diffusers' pipeline, and the step module run by torch.

The step module is spared the time embedding, as this runtime is. Its loop stays on the device and
draws its noise there. In 16 bits its weights are halves in torch's channels_last order, which is
how torch is fastest.
"""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _diffusers import NotTheirs, pipeline
from _gpu_models import Setting
from _gpu_timing import BURST, Runner, deadline, synchronize
from torch import Tensor, nn

from difftool.diffusion.labels import rows_of
from difftool.errors import MissingDependencyError, UsageError
from difftool.export.compiled import jit_compiled
from difftool.export.eager import Eager
from difftool.export.onnx import step_module
from difftool.export.step import StepModule
from difftool.runtime.backends.prepare import Prepared
from difftool.runtime.backends.reference import Reference
from difftool.runtime.backends.torchscript import Step, TorchBatch
from difftool.runtime.draws import Draws, row_noise, start_noise

_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
State = tuple[Tensor, ...]  # x, history, row


def set_tf32(allowed: bool) -> None:
    """Whether torch's products and convolutions may round their inputs to 10 bits of mantissa."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is a newer interface, which old releases lack
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed


def exact(setting: Setting) -> Eager:
    """PyTorch in float32, whose outputs count. TF32 must be off while it runs."""
    return Eager(
        copy.deepcopy(setting.checkpoint.network),
        setting.spec,
        setting.bundle.features,
        device=setting.device,
    )


def diffusers_pipeline(setting: Setting, precision: str) -> Runner:
    """diffusers' DDPMPipeline, called as its page says."""
    try:
        pipe = pipeline(setting.checkpoint)
    except ImportError as error:
        raise MissingDependencyError("diffusers is not installed") from error
    except NotTheirs as error:
        raise UsageError(str(error)) from error
    dtype = _TYPES.get(precision, torch.float32)
    pipe.to(setting.device)
    pipe.unet.to(dtype)

    def steps(count: int) -> None:
        pipe(batch_size=setting.size, num_inference_steps=count, output_type="np")

    def network(x: np.ndarray, cond: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            inputs = (torch.from_numpy(a).to(setting.device, dtype) for a in (x, cond))
            return pipe.unet(*inputs).sample.double().cpu().numpy()

    return Runner(
        batch=Reference(network, setting.spec.shape).batch(setting.program, setting.size),
        begin=lambda: None,
        steps=steps,
        wait=lambda: synchronize(setting.device),
        most=len(setting.program),
        least=10 if setting.size == 1 else 4,  # what a call costs is small beside 1000 steps
        enter=lambda: set_tf32(precision == "tf32"),
        burst=0,
    )


def eager(setting: Setting, precision: str) -> Runner:
    """The step module as torch runs it."""
    return _runner(setting, precision, lambda built: built.module, _rebound)


def compiled(setting: Setting, precision: str) -> Runner:
    """torch.compile with max-autotune, which captures CUDA graphs of its own."""
    _require_gpu(setting)
    slots = setting.program.history
    make = jit_compiled(setting.spec, slots=slots, mode="max-autotune")

    def marked(built: "_Built") -> Step:
        step = make(built.module)

        def run(*tensors: Tensor) -> State:
            torch.compiler.cudagraph_mark_step_begin()
            return tuple(step(*tensors))

        return run

    with deadline(setting.compile_seconds):
        runner = _runner(setting, precision, marked, _copied, burst=BURST)
        runner.enter()
        runner.begin()
        runner.steps(2)
        runner.wait()
    return runner


def captured(setting: Setting, precision: str) -> Runner:
    """The step module, its noise and the change of state as one CUDA graph, replayed."""
    _require_gpu(setting)
    return _runner(setting, precision, _captured_step, _captured_loop, burst=BURST)


class InHalf(nn.Module):
    """A network in 16 bits between float32 tensors; its conditioner stays as it was."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.exact = network
        self.lowered = copy.deepcopy(network).to(dtype=dtype, memory_format=torch.channels_last)
        self.dtype = dtype

    def condition(self, *inputs: Tensor) -> Tensor:
        return self.exact.condition(*inputs)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        if x.ndim == 4:
            x = x.to(self.dtype, memory_format=torch.channels_last)
        return self.lowered(x.to(self.dtype), cond.to(self.dtype)).float()


@dataclass(frozen=True)
class _Built:
    """A step module on the device, with what it runs on: the state, and what stays the same."""

    module: StepModule
    state: State
    noise: Tensor
    tables: tuple[Tensor, ...]


Loop = Callable[[_Built, Step], tuple[Callable[[State], None], Callable[[int], None]]]


def _runner(
    setting: Setting,
    precision: str,
    make: Callable[[_Built], Step],
    loop: Loop,
    *,
    burst: int = 2,
) -> Runner:
    program, spec, device = setting.program, setting.spec, setting.device
    set_tf32(precision == "tf32")
    network = copy.deepcopy(setting.checkpoint.network).to(device).eval()
    if precision in _TYPES:
        network = InHalf(network, _TYPES[precision])
    module = step_module(network, spec, setting.bundle.features).to(device)
    rows = rows_of(program, spec, setting.size, None)
    with torch.inference_mode():
        conds = torch.from_numpy(rows.conds).float().to(device)
        cond_table = module.network.condition(conds).cpu().numpy()
    shape = (setting.size, *spec.shape)
    x0 = start_noise(program, Draws(0, np.arange(setting.size), spec.shape))
    first: State = (
        torch.from_numpy(x0).to(device),
        torch.zeros(program.history, *shape, device=device),
        torch.from_numpy(rows.first).to(device),
    )
    tables = [rows.table.astype(np.float32), cond_table]
    built = _Built(
        module,
        tuple(tensor.clone() for tensor in first),
        torch.zeros(shape, device=device),
        tuple(torch.from_numpy(table).to(device) for table in tables),
    )
    step = make(built)
    reset, steps = loop(built, step)
    return Runner(
        batch=TorchBatch(_kept(step), Prepared(rows, cond_table, shape), device),
        begin=lambda: reset(first),
        steps=steps,
        wait=lambda: synchronize(device),
        most=len(program),
        enter=lambda: set_tf32(precision == "tf32"),
        burst=burst,
    )


def _kept(step: Step) -> Step:
    """The same, whose outputs the next step does not overwrite."""
    return lambda *tensors: tuple(tensor.clone() for tensor in step(*tensors))


def _rebound(built: _Built, step: Step) -> tuple[Callable[[State], None], Callable[[int], None]]:
    """What a step returns is the next one's state."""
    state = list(built.state)

    def reset(first: State) -> None:
        state[:] = first

    def steps(count: int) -> None:
        with torch.inference_mode():
            for _ in range(count):
                state[:] = step(*state, built.noise.normal_(), *built.tables)[:3]

    return reset, steps


def _copied(built: _Built, step: Step) -> tuple[Callable[[State], None], Callable[[int], None]]:
    """What a step returns is copied into the state, since the next step overwrites it."""

    def steps(count: int) -> None:
        with torch.inference_mode():
            for _ in range(count):
                _copy(step(*built.state, built.noise.normal_(), *built.tables), built.state)

    return lambda first: _copy(first, built.state), steps


def _captured_step(built: _Built) -> Step:
    """A graph of the step alone, for noise from elsewhere."""
    found: dict[str, Any] = {}

    def run(*tensors: Tensor) -> State:
        inputs = (*built.state, built.noise)
        if not found:
            with torch.no_grad():
                found["tables"] = tuple(tensor.clone() for tensor in tensors[4:])
                found["graph"], found["out"] = _graph(
                    lambda: built.module(*inputs, *found["tables"])
                )
        _copy(tensors[4:], found["tables"])
        _copy(tensors[:4], inputs)
        found["graph"].replay()
        return found["out"]

    return run


def _captured_loop(
    built: _Built, step: Step
) -> tuple[Callable[[State], None], Callable[[int], None]]:
    def whole() -> None:
        built.noise.normal_()
        _copy(built.module(*built.state, built.noise, *built.tables), built.state)

    with torch.no_grad():
        graph, _ = _graph(whole)

    def steps(count: int) -> None:
        for _ in range(count):
            graph.replay()

    return lambda first: _copy(first, built.state), steps


def _graph(work: Callable[[], Any]) -> tuple[Any, Any]:
    """A CUDA graph, and what the captured work returned. It runs before, beside the main stream.

    There cuDNN tries its algorithms, of which the graph keeps the fastest.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    torch.backends.cudnn.benchmark = True
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = work()
    torch.backends.cudnn.benchmark = False
    return graph, out


def _copy(values: Any, into: State) -> None:
    for value, target in zip(values, into, strict=False):
        target.copy_(value)


def _require_gpu(setting: Setting) -> None:
    if setting.device == "cpu":
        raise MissingDependencyError("this needs a GPU")


def torchscript(setting: Setting) -> Runner:
    """The runtime's own backend of that name, which takes its noise from the host."""
    from difftool.runtime.opening import open_backend

    set_tf32(False)
    backend = open_backend(setting.bundle, "torchscript", threads=None)
    batch = backend.batch(setting.program, setting.size)
    draws = Draws(0, np.arange(setting.size), setting.spec.shape)
    x = start_noise(setting.program, draws)

    def steps(count: int) -> None:
        for _, noise in zip(range(count), row_noise(setting.program, draws), strict=False):
            batch.step(noise)

    return Runner(
        batch=batch,
        begin=lambda: batch.start(x),
        steps=steps,
        wait=lambda: synchronize(setting.device),
        most=len(setting.program),
        enter=lambda: set_tf32(False),
    )
