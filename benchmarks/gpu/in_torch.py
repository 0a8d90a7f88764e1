"""The peers on a GPU that need PyTorch: diffusers' pipeline, and the step module run by torch.

The step module is spared the time embedding, as this runtime is. Its loop stays on the device and
draws its noise there. In 16 bits its weights are halves in torch's channels_last order, which is
how torch is fastest.
"""

import copy
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common.candidates import Runner
from common.in_diffusers import pipeline_runner
from common.inside import PreparedRows, lay_out_rows
from common.inside_torch import Step, StepModule, TorchBatch, jit_compiled
from common.models import Setting
from common.peers import loop_runner
from common.timing import deadline
from torch import Tensor, nn

from difftool.runtime import Draws, open_backend, start_noise
from gpu.timing import synchronize

_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
State = tuple[Tensor, ...]  # x, history, row
Capture = Callable[[Callable[[], Any]], tuple[Any, Any]]  # of work; a graph, what work returned


def set_tf32(allowed: bool) -> None:
    """Set whether torch's products and convolutions may round inputs to 10 bits of mantissa."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is a newer interface, which old releases lack
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed


def _around(setting: Setting, precision: str) -> dict[str, Callable[[], None]]:
    """Give what a runner of torch does before its turn, and how it waits for its steps."""
    return {
        "enter": lambda: set_tf32(precision == "tf32"),
        "wait": lambda: synchronize(setting.device),
    }


def diffusers_pipeline(setting: Setting, precision: str) -> Runner:
    """Open diffusers' DDPMPipeline."""
    return replace(
        pipeline_runner(setting, _TYPES.get(precision, torch.float32)),
        **_around(setting, precision),
        least=10 if setting.size == 1 else 4,  # what a call costs is small beside 1000 steps
    )


def eager(setting: Setting, precision: str) -> Runner:
    """Open the step module as torch runs it."""
    return _runner(setting, precision, lambda built: built.module, _rebound)


def compiled(setting: Setting, precision: str, compiler: Callable = jit_compiled) -> Runner:
    """Open torch.compile with max-autotune, which captures CUDA graphs of its own."""
    make = compiler(slots=setting.program.history, mode="max-autotune")

    def marked(built: "_Built") -> Step:
        step = make(built.module)

        def run(*tensors: Tensor) -> State:
            torch.compiler.cudagraph_mark_step_begin()
            return tuple(step(*tensors))

        return run

    with deadline(setting.compile_seconds):
        runner = _runner(setting, precision, marked, _copied)
        runner.start(2)
        runner.wait()
    return runner


def cuda_graph(work: Callable[[], Any]) -> tuple[Any, Any]:
    """Capture work as a CUDA graph; give that, and what the work returned.

    The work runs before, beside the main stream. There cuDNN tries its algorithms, of which the
    graph keeps the fastest.
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


def captured(
    setting: Setting,
    precision: str,
    capture: Capture = cuda_graph,
    lower: Callable[["_Built"], "_Built"] = lambda built: built,
) -> Runner:
    """Open the step module, its noise and the change of state as one CUDA graph, replayed."""
    lowered: list[_Built] = []

    def make(built: "_Built") -> Step:
        lowered.append(lower(built))
        return _captured_step(lowered[0], capture)

    def loop(built: "_Built", step: Step) -> Callable[[int], None]:
        return _captured_loop(lowered[0], step, capture)

    return _runner(setting, precision, make, loop)


def package(module: StepModule, inputs: State, folder: Path) -> Step:
    """Compile the module with AOTInductor as a package, and load that as any process can."""
    exported = torch.export.export(module, inputs)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        path = torch._inductor.aoti_compile_and_package(
            exported,
            package_path=f"{made}/step.pt2",
            inductor_configs={"max_autotune": True},
        )
        # Its own threads and locks would be in the way of a capture.
        loaded: Step = torch._inductor.aoti_load_package(path, run_single_threaded=True)
    return loaded


def aot_inductor(
    setting: Setting,
    precision: str,
    compiler: Callable[[StepModule, State, Path], Step] = package,
    capture: Capture = cuda_graph,
) -> Runner:
    """Open AOTInductor's package of the step module, its noise and state as one CUDA graph."""

    def lower(built: "_Built") -> "_Built":
        with torch.no_grad():
            return replace(built, module=compiler(built.module, built.inputs(), setting.folder))

    with deadline(setting.compile_seconds):
        return captured(setting, precision, capture, lower)


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

    module: Step
    first: State
    state: list[Tensor]
    noise: Tensor
    tables: State

    def reset(self) -> None:
        """Go to the first row."""
        with torch.inference_mode():
            _copy(self.first, self.state)

    def inputs(self) -> State:
        """Draw noise, and give what the module takes."""
        return (*self.state, self.noise.normal_(), *self.tables)


Make = Callable[[_Built], Step]
Loop = Callable[[_Built, Step], Callable[[int], None]]  # takes so many steps


def _runner(setting: Setting, precision: str, make: Make, loop: Loop) -> Runner:
    """Build the module, what takes a step, and what takes many of them."""
    program, spec, device = setting.program, setting.spec, setting.device
    set_tf32(precision == "tf32")
    network = copy.deepcopy(setting.checkpoint.network).to(device).eval()
    if precision in _TYPES:
        network = InHalf(network, _TYPES[precision])
    module = StepModule(network, spec, setting.bundle.features).to(device)
    rows = lay_out_rows(program, spec, setting.size, None)
    with torch.inference_mode():
        conds = torch.from_numpy(rows.conds).float().to(device)
        cond_table = module.network.condition(conds).cpu().numpy()
    shape = (setting.size, *spec.shape)
    x0 = start_noise(program, Draws(0, np.arange(setting.size), spec.shape))
    history = np.zeros((program.history, *shape), np.float32)
    first, tables = (
        tuple(torch.from_numpy(array).to(device) for array in arrays)
        for arrays in ((x0, history, rows.first), (rows.table.astype(np.float32), cond_table))
    )
    state = [tensor.clone() for tensor in first]
    built = _Built(module, first, state, torch.zeros(shape, device=device), tables)
    step = make(built)

    def kept(*tensors: Tensor) -> State:
        """Take a step whose outputs the next one does not overwrite."""
        return tuple(tensor.clone() for tensor in step(*tensors))

    return Runner(
        TorchBatch(kept, PreparedRows(rows, cond_table, shape), device),
        loop(built, step),
        built.reset,
        **_around(setting, precision),
        most=len(program),
    )


def _repeated(once: Callable[[], object]) -> Callable[[int], None]:
    @torch.inference_mode()
    def steps(count: int) -> None:
        for _ in range(count):
            once()

    return steps


def _rebound(built: _Built, step: Step) -> Callable[[int], None]:
    """Take what a step returns as the next one's state."""

    def once() -> None:
        built.state[:] = step(*built.inputs())[:3]

    return _repeated(once)


def _copied(built: _Built, step: Step) -> Callable[[int], None]:
    """Copy what a step returns into the state, since the next step may overwrite it."""
    return _repeated(lambda: _copy(step(*built.inputs()), built.state))


def _captured_step(built: _Built, capture: Capture) -> Step:
    """Capture a graph of the step alone, for noise from elsewhere."""
    places = (*built.state, built.noise, *(table.clone() for table in built.tables))
    replay: list[Any] = []

    def run(*tensors: Tensor) -> State:
        _copy(tensors, places)
        if not replay:
            with torch.no_grad():
                replay.extend(capture(lambda: built.module(*places)))
        replay[0].replay()
        return replay[1]

    return run


def _captured_loop(built: _Built, step: Step, capture: Capture) -> Callable[[int], None]:
    with torch.no_grad():
        graph, _ = capture(lambda: _copy(built.module(*built.inputs()), built.state))
    return _repeated(graph.replay)


def _copy(values: Any, into: Sequence[Tensor]) -> None:
    for value, target in zip(values, into, strict=False):
        target.copy_(value)


def torchscript(setting: Setting, precision: str) -> Runner:
    """Open the runtime's own backend of that name, which takes its noise from the host."""
    set_tf32(False)
    backend = open_backend(setting.bundle, "torchscript", threads=None)
    return replace(loop_runner(backend, setting), **_around(setting, precision))
