"""Train, export and sample score-based and diffusion models; the runtime needs no PyTorch."""

from difftool.errors import DifftoolError
from difftool.lazy import TYPE_CHECKING, lazily
from difftool.version import __version__ as __version__

if TYPE_CHECKING:
    from difftool import (
        compile,
        data,
        evaluate,
        export,
        importers,
        plot,
        runtime,
        scale,
        serve,
        train,
        verify,
    )
    from difftool.bundle import Bundle
    from difftool.diffusion import samplers
    from difftool.diffusion.builder import ProgramBuilder, sampler
    from difftool.diffusion.program import Program
    from difftool.diffusion.spec import ModelSpec
    from difftool.runtime import Model, State, edits, load, shipped_models, to_uint8

__all__ = [
    "Bundle",
    "DifftoolError",
    "Model",
    "ModelSpec",
    "Program",
    "ProgramBuilder",
    "State",
    "compile",
    "data",
    "edits",
    "evaluate",
    "export",
    "importers",
    "load",
    "plot",
    "runtime",
    "sampler",
    "samplers",
    "scale",
    "serve",
    "shipped_models",
    "to_uint8",
    "train",
    "verify",
]

_HOMES = {
    "Bundle": "difftool.bundle",
    "Model": "difftool.runtime.model",
    "ModelSpec": "difftool.diffusion.spec",
    "Program": "difftool.diffusion.program",
    "ProgramBuilder": "difftool.diffusion.builder",
    "State": "difftool.runtime.state",
    "compile": "difftool.compile",
    "data": "difftool.data",
    "edits": "difftool.runtime.edits",
    "evaluate": "difftool.evaluate",
    "export": "difftool.export",
    "importers": "difftool.importers",
    "load": "difftool.runtime.model",
    "plot": "difftool.plot",
    "runtime": "difftool.runtime",
    "sampler": "difftool.diffusion.builder",
    "samplers": "difftool.diffusion.samplers",
    "scale": "difftool.scale",
    "serve": "difftool.serve",
    "shipped_models": "difftool.runtime.shipped",
    "to_uint8": "difftool.runtime.images",
    "train": "difftool.train",
    "verify": "difftool.verify",
}

__getattr__ = lazily("difftool", _HOMES)
