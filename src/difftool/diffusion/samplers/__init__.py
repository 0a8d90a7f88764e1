"""Samplers: pure functions from a model's spec to a program. One file a family."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from difftool.diffusion.calls import require_types
from difftool.diffusion.program import Program
from difftool.diffusion.samplers.ancestral import ddpm
from difftool.diffusion.samplers.consistent import consistent_annealed
from difftool.diffusion.samplers.ddim import ddim
from difftool.diffusion.samplers.dpmpp import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m
from difftool.diffusion.samplers.euler import euler, euler_ancestral
from difftool.diffusion.samplers.heun import heun
from difftool.diffusion.samplers.langevin import annealed_langevin, langevin
from difftool.diffusion.samplers.plms import plms
from difftool.diffusion.samplers.repaint import repaint
from difftool.diffusion.samplers.score_sde import (
    predictor_corrector,
    probability_flow,
    reverse_diffusion,
)
from difftool.diffusion.samplers.unipc import unipc
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError, quoted

__all__ = [
    "SAMPLERS",
    "annealed_langevin",
    "compile_program",
    "consistent_annealed",
    "ddim",
    "ddpm",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_3m",
    "euler",
    "euler_ancestral",
    "heun",
    "langevin",
    "plms",
    "predictor_corrector",
    "probability_flow",
    "repaint",
    "reverse_diffusion",
    "unipc",
]

SAMPLERS: Final[Mapping[str, Callable[..., Program]]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "repaint": repaint,
    "langevin": langevin,
    "annealed_langevin": annealed_langevin,
    "consistent_annealed": consistent_annealed,
    "predictor_corrector": predictor_corrector,
    "reverse_diffusion": reverse_diffusion,
    "probability_flow": probability_flow,
    "euler": euler,
    "euler_ancestral": euler_ancestral,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "dpmpp_3m": dpmpp_3m,
    "unipc": unipc,
    "plms": plms,
}


def compile_program(spec: ModelSpec, sampler: str, arguments: Mapping[str, Any]) -> Program:
    """The program of a sampler given by name.

    Raises:
        UsageError: no such sampler, or an argument is unknown, of another type or so large that
            the arithmetic of the rows overflows.
    """
    if sampler not in SAMPLERS:
        raise UsageError(f"unknown sampler {quoted(sampler)}", f"one of: {', '.join(SAMPLERS)}")
    function = SAMPLERS[sampler]
    known = [name for name in inspect.signature(function).parameters if name != "spec"]
    for name in arguments:
        if name not in known:
            raise UsageError(
                f"sampler {sampler} takes no {quoted(name)}", f"it takes: {', '.join(known)}"
            )
    require_types(sampler, function, arguments)
    try:
        return function(spec, **arguments)
    except ArithmeticError as error:
        given = ", ".join(f"{name} {quoted(value)}" for name, value in arguments.items())
        raise UsageError(
            f"{sampler} overflows with {given or 'this model'}", "give numbers nearer to 1"
        ) from error
