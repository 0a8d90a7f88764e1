"""Samplers: pure functions from a model's spec to a program. One file a family."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from difftool.diffusion.program import Program
from difftool.diffusion.samplers.ancestral import ddpm
from difftool.diffusion.samplers.ddim import ddim
from difftool.diffusion.samplers.langevin import annealed_langevin, langevin
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError

__all__ = ["SAMPLERS", "annealed_langevin", "compile_program", "ddim", "ddpm", "langevin"]

SAMPLERS: Final[Mapping[str, Callable[..., Program]]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "langevin": langevin,
    "annealed_langevin": annealed_langevin,
}


def compile_program(spec: ModelSpec, sampler: str, arguments: Mapping[str, Any]) -> Program:
    """The program of a sampler given by name; UsageError where the name or an argument is unknown."""
    if sampler not in SAMPLERS:
        raise UsageError(f"unknown sampler {sampler!r}", f"one of: {', '.join(SAMPLERS)}")
    function = SAMPLERS[sampler]
    known = [name for name in inspect.signature(function).parameters if name != "spec"]
    if unknown := [name for name in arguments if name not in known]:
        raise UsageError(
            f"sampler {sampler} takes no {unknown[0]!r}", f"it takes: {', '.join(known)}"
        )
    return function(spec, **arguments)
