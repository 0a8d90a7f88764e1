"""NVRTC: it compiles the sources in `kernels/` on any machine, with a GPU or without one."""

from pathlib import Path
from typing import Final

from difftool.errors import MissingDependencyError, UsageError

KERNELS: Final = Path(__file__).parent / "kernels"


def cubin(name: str, arch: str) -> bytes:
    """Compile the kernels of `kernels/NAME.cu` for a GPU architecture such as "sm_90".

    No option trades accuracy for speed, and multiply-adds are not contracted: every sum, product
    and square root rounds as numpy's does. It costs nothing, since the kernels wait for memory. So
    tests of the plain C++ build hold on a GPU, but for the last bits of log, sin, cos and exp.

    Raises:
        MissingDependencyError: cuda-core, cuda-bindings or NVRTC is not installed.
        UsageError: the installed NVRTC knows no such architecture.
    """
    try:
        from cuda.bindings import nvrtc
        from cuda.core import Program, ProgramOptions
        from cuda.pathfinder import DynamicLibNotFoundError
    except ImportError as error:
        raise MissingDependencyError.extra("cuda-core or cuda-bindings", "cuda") from error
    try:
        _, numbers = nvrtc.nvrtcGetSupportedArchs()
    except DynamicLibNotFoundError as error:
        raise MissingDependencyError.extra("NVRTC", "cuda") from error
    known = [f"sm_{number}" for number in sorted(numbers)]
    if arch not in known:
        raise UsageError(
            f"the installed NVRTC does not compile for {arch!r}", f"it knows {', '.join(known)}"
        )
    options = ProgramOptions(
        name=f"{name}.cu",
        arch=arch,
        std="c++17",
        include_path=str(KERNELS),
        use_fast_math=False,
        fma=False,
        ftz=False,
        prec_div=True,
        prec_sqrt=True,
    )
    source = (KERNELS / f"{name}.cu").read_text(encoding="utf-8")
    return bytes(Program(source, "c++", options).compile("cubin").code)
