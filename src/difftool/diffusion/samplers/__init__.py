"""Samplers: pure functions from a model's spec to a program. Each family has a file."""

import inspect
from collections.abc import Callable, Mapping
from typing import Final

from difftool.diffusion.calls import SamplerCall, require_known, require_types
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError, quoted

# A sampler is one line here, in the order in which samplers are listed.
# isort: off
from difftool.diffusion.samplers.ancestral import ddpm as ddpm
from difftool.diffusion.samplers.ddim import ddim as ddim
from difftool.diffusion.samplers.repaint import repaint as repaint
from difftool.diffusion.samplers.langevin import langevin as langevin
from difftool.diffusion.samplers.langevin import annealed_langevin as annealed_langevin
from difftool.diffusion.samplers.consistent import consistent_annealed as consistent_annealed
from difftool.diffusion.samplers.score_sde import predictor_corrector as predictor_corrector
from difftool.diffusion.samplers.score_sde import reverse_diffusion as reverse_diffusion
from difftool.diffusion.samplers.score_sde import probability_flow as probability_flow
from difftool.diffusion.samplers.euler import euler as euler
from difftool.diffusion.samplers.euler import euler_ancestral as euler_ancestral
from difftool.diffusion.samplers.heun import heun as heun
from difftool.diffusion.samplers.dpmpp import dpmpp_2m as dpmpp_2m
from difftool.diffusion.samplers.dpmpp import dpmpp_2m_sde as dpmpp_2m_sde
from difftool.diffusion.samplers.dpmpp import dpmpp_3m as dpmpp_3m
from difftool.diffusion.samplers.unipc import unipc as unipc
from difftool.diffusion.samplers.plms import plms as plms
from difftool.diffusion.samplers.consistency import consistency as consistency
# isort: on

# By their names: the functions that the lines above import.
SAMPLERS: Final[Mapping[str, Callable[..., Program]]] = {
    name: each
    for name, each in list(globals().items())
    if inspect.isfunction(each) and each.__module__.startswith(f"{__name__}.")
}
"""All samplers by their names: functions that compile a program."""


def sampler_named(name: str) -> Callable[..., Program]:
    """Return the sampler of that name; UsageError if there is none."""
    require_known("sampler", name, SAMPLERS)
    return SAMPLERS[name]


def compile_program(spec: ModelSpec, call: SamplerCall) -> Program:
    """Compile the program of a sampler that is given by its name.

    Raises:
        UsageError: there is no such sampler, or an argument is unknown, has a wrong type, or is so
            large that the rows overflow.
    """
    function = sampler_named(call.name)
    (_, *known) = inspect.signature(function).parameters
    for name in call.arguments:
        if name not in known:
            raise UsageError(
                f"sampler {call.name} takes no {quoted(name)}", f"it takes: {', '.join(known)}"
            )
    require_types(call.name, function, call.arguments)
    try:
        return function(spec, **call.arguments)
    except ArithmeticError as error:
        given = ", ".join(f"{name} {quoted(value)}" for name, value in call.arguments.items())
        raise UsageError(
            f"{call.name} overflows with {given or 'this model'}", "give numbers nearer to 1"
        ) from error
