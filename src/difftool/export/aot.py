"""Export the step module as an AOTInductor package: machine code for torch and this machine.

On a machine with an NVIDIA GPU the package is for that GPU, or else for the CPU.
"""

import contextlib
import copy
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.export import Dim

from difftool.diffusion.columns import Column
from difftool.diffusion.features import Feature
from difftool.errors import MissingDependencyError, ResourceError, UsageError, first_line
from difftool.export.onnx import example_inputs
from difftool.export.step import StepModule
from difftool.runtime.backends.aot_inductor import FEATURES, cpu_features, fewest_samples
from difftool.runtime.backends.table import find_backend

_HALVES: Final = {"fp16": torch.float16, "bf16": torch.bfloat16}

# Sizes of the example inputs. No two are the same, or the compiler would take them for one.
_BATCH, _SLOTS = 8, 4


class InHalf(nn.Module):
    """A network in 16 bits between float32 tensors."""

    def __init__(self, network: nn.Module, half: torch.dtype) -> None:
        super().__init__()
        self.network, self._dtype = network.to(half), half

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return self.network(x.to(self._dtype), cond.to(self._dtype)).float()


def require_aot(precision: str) -> None:
    """Raise the error of a package that cannot be made here.

    UsageError if there is none in that precision. MissingDependencyError without a C++ compiler.
    """
    precisions = find_backend("aot-inductor").precisions
    if precision not in precisions:
        raise UsageError(f"there is no package in {precision}", f"one of: {', '.join(precisions)}")
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:  # its class differs between systems
        raise MissingDependencyError(
            "a package needs a C++ compiler, and there is none here",
            "install g++ (clang++ on a Mac), or name one in CXX",
        ) from error


def aot_package(module: StepModule, path: Path, precision: str = "fp32") -> None:
    """Compile the step module to the package `path`, which ends in .pt2.

    Batch, history slots, rows and conds are free. In "fp16" and "bf16" the network alone is in 16
    bits, as in `compile.precision`.

    Raises:
        UsageError, MissingDependencyError: see `require_aot`.
        ResourceError: the compiler fails.
    """
    require_aot(precision)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings: dict[str, Any] = {
        "aot_inductor.metadata": {FEATURES: json.dumps(sorted(cpu_features()))}
    }
    if device == "cuda":
        settings |= {"max_autotune": True, "coordinate_descent_tuning": True}
    try:
        with (
            _quiet(),
            torch.no_grad(),
            # A kernel that is chosen now keeps its way to round, which in fp32 is not TF32's.
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            inputs = tuple(tensor.to(device) for tensor in example_inputs(module, _BATCH, _SLOTS))
            program = _exported(_placed(module, precision, device), inputs)
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs=settings
            )
    except Exception as error:  # a compiler in other hands: its errors have no base of their own
        raise ResourceError(
            f"torch could not compile the step module: {first_line(error)}",
            "leave the package out, or see what the compiler lacks: TORCH_LOGS=inductor",
        ) from error


def _placed(module: StepModule, precision: str, device: str) -> StepModule:
    """Return a copy on the device, in the precision."""
    network = copy.deepcopy(module.network).to(device)
    if precision in _HALVES:
        network = InHalf(network, _HALVES[precision])
    if device == "cuda":  # where convolutions are fastest so
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return StepModule(network, module.spec, module.features)


def _exported(module: StepModule, inputs: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    batch = Dim("batch", min=fewest_samples(module.spec.shape, module.features))
    slots, rows, conds = Dim("slots", min=1), Dim("rows"), Dim("conds")
    axes: list[dict[int, Any]] = [
        {0: batch},
        {0: slots, 1: batch},
        {0: batch},
        {0: batch},
        {0: rows, 1: slots + int(Column.HISTORY)},
        {0: conds},
    ]
    if Feature.KNOWN in module.features:
        axes += [{0: batch}, {0: batch}]
    # Without this a size of 1 is taken for fixed.
    with torch.fx.experimental._config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        return torch.export.export(module, inputs, dynamic_shapes=tuple(axes))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the compiler, which logs what it tunes and warns of its own parts."""
    inductor = logging.getLogger("torch._inductor")
    level = inductor.level
    inductor.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        inductor.setLevel(level)
