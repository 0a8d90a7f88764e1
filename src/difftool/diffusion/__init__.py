"""The mathematics of score-based and diffusion models; numpy and the standard library only."""

from difftool.lazy import TYPE_CHECKING, lazily

if TYPE_CHECKING:
    from difftool.diffusion import samplers, schedules
    from difftool.diffusion.builder import ProgramBuilder, sampler
    from difftool.diffusion.calls import NetworkCall, SamplerCall, type_name
    from difftool.diffusion.caution import caveats
    from difftool.diffusion.describe import describe_sampler
    from difftool.diffusion.features import Feature
    from difftool.diffusion.invariant import validate
    from difftool.diffusion.labels import Labels, class_index, class_indices
    from difftool.diffusion.packed import pack_program
    from difftool.diffusion.program import Program
    from difftool.diffusion.samplers import SAMPLERS, compile_program, sampler_named
    from difftool.diffusion.spacing import transitions, visited
    from difftool.diffusion.spec import ModelSpec

__all__ = [
    "SAMPLERS",
    "Feature",
    "Labels",
    "ModelSpec",
    "NetworkCall",
    "Program",
    "ProgramBuilder",
    "SamplerCall",
    "caveats",
    "class_index",
    "class_indices",
    "compile_program",
    "describe_sampler",
    "pack_program",
    "sampler",
    "sampler_named",
    "samplers",
    "schedules",
    "transitions",
    "type_name",
    "validate",
    "visited",
]

_HOMES = {
    "Labels": "difftool.diffusion.labels",
    "Feature": "difftool.diffusion.features",
    "ModelSpec": "difftool.diffusion.spec",
    "NetworkCall": "difftool.diffusion.calls",
    "Program": "difftool.diffusion.program",
    "ProgramBuilder": "difftool.diffusion.builder",
    "SAMPLERS": "difftool.diffusion.samplers",
    "SamplerCall": "difftool.diffusion.calls",
    "caveats": "difftool.diffusion.caution",
    "class_index": "difftool.diffusion.labels",
    "class_indices": "difftool.diffusion.labels",
    "compile_program": "difftool.diffusion.samplers",
    "describe_sampler": "difftool.diffusion.describe",
    "pack_program": "difftool.diffusion.packed",
    "sampler": "difftool.diffusion.builder",
    "sampler_named": "difftool.diffusion.samplers",
    "samplers": "difftool.diffusion.samplers",
    "schedules": "difftool.diffusion.schedules",
    "transitions": "difftool.diffusion.spacing",
    "type_name": "difftool.diffusion.calls",
    "validate": "difftool.diffusion.invariant",
    "visited": "difftool.diffusion.spacing",
}

__getattr__ = lazily(__name__, _HOMES)
