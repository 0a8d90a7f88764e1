"""Train, export and sample score-based and diffusion models; the runtime needs no PyTorch."""

from difftool.errors import DifftoolError

# That of typing, whose import takes longer than all else until the command line hears signals.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from difftool.diffusion import samplers
    from difftool.diffusion.builder import ProgramBuilder, sampler
    from difftool.diffusion.program import Program
    from difftool.diffusion.spec import ModelSpec
    from difftool.runtime import Model, State, edits, load, shipped_models, to_uint8

__version__ = "0.1.0"

__all__ = [
    "DifftoolError",
    "Model",
    "ModelSpec",
    "Program",
    "ProgramBuilder",
    "State",
    "edits",
    "load",
    "sampler",
    "samplers",
    "shipped_models",
    "to_uint8",
]

# Loaded at first use, so that `import difftool` and `difftool --help` cost nothing.
_HOMES = {
    "Model": "difftool.runtime",
    "ModelSpec": "difftool.diffusion.spec",
    "Program": "difftool.diffusion.program",
    "ProgramBuilder": "difftool.diffusion.builder",
    "State": "difftool.runtime",
    "edits": "difftool.runtime.edits",
    "load": "difftool.runtime",
    "sampler": "difftool.diffusion.builder",
    "samplers": "difftool.diffusion.samplers",
    "shipped_models": "difftool.runtime",
    "to_uint8": "difftool.runtime",
}


def __getattr__(name: str) -> "Any":
    if name not in _HOMES:
        raise AttributeError(f"module 'difftool' has no attribute {name!r}")
    from importlib import import_module

    home = import_module(_HOMES[name])
    return home if name in ("edits", "samplers") else getattr(home, name)
