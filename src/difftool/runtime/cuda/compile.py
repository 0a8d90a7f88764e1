"""NVRTC: it compiles the sources in `kernels/` on any machine, with a GPU or without one."""

import contextlib
import hashlib
from pathlib import Path
from typing import Any, Final

from difftool.errors import DifftoolError, MissingDependencyError, UsageError
from difftool.runtime.engine_cache import EngineCache

KERNELS: Final = Path(__file__).parent / "kernels"

_OPTIONS: Final[dict[str, Any]] = {
    "std": "c++17",
    "use_fast_math": False,
    "fma": False,
    "ftz": False,
    "prec_div": True,
    "prec_sqrt": True,
}


def kept_cubin(name: str, arch: str) -> bytes:
    """Return `cubin(name, arch)`, compiled once: it is kept in the user's cache of engines.

    A file of the cache is the sha256 of the code and the code, which is compiled anew if they do
    not fit. It is named by the digest of all that the code depends on.
    """
    cache = EngineCache()
    path = cache.kernel_path(_digest(name, arch))
    with contextlib.suppress(DifftoolError, OSError):  # a cache is never a reason not to run
        kept = cache.read(path)
        sha256, code = kept[:32], kept[32:]
        if hashlib.sha256(code).digest() == sha256:
            return code
    code = cubin(name, arch)
    with contextlib.suppress(DifftoolError, OSError):
        cache.write(path, hashlib.sha256(code).digest() + code)
    return code


def _digest(name: str, arch: str) -> str:
    """Return the digest of the sources, the options, the architecture and NVRTC's version."""
    nvrtc = _nvrtc()
    asked = repr((name, arch, _OPTIONS, nvrtc.nvrtcVersion()[1:]))
    sources = [file.read_bytes() for file in sorted(KERNELS.glob("*.cu*"))]
    return hashlib.sha256(b"\0".join([asked.encode(), *sources])).hexdigest()


def cubin(name: str, arch: str) -> bytes:
    """Compile the kernels of `kernels/NAME.cu` for a GPU architecture such as "sm_90".

    No option trades accuracy for speed, and multiply-adds are not contracted: every sum, product
    and square root rounds as numpy's does. It costs nothing, since the kernels wait for memory. So
    tests of the plain C++ build hold on a GPU, but for the last bits of log, sin, cos and exp.

    Raises:
        MissingDependencyError: cuda-core, cuda-bindings or NVRTC is not installed.
        UsageError: the installed NVRTC knows no such architecture.
    """
    nvrtc = _nvrtc()
    from cuda.core import Program, ProgramOptions

    _, numbers = nvrtc.nvrtcGetSupportedArchs()
    known = [f"sm_{number}" for number in sorted(numbers)]
    if arch not in known:
        raise UsageError(
            f"the installed NVRTC does not compile for {arch!r}", f"it knows {', '.join(known)}"
        )
    options = ProgramOptions(name=f"{name}.cu", arch=arch, include_path=str(KERNELS), **_OPTIONS)
    source = (KERNELS / f"{name}.cu").read_text(encoding="utf-8")
    return bytes(Program(source, "c++", options).compile("cubin").code)


def _nvrtc() -> Any:
    """Return NVRTC's bindings; MissingDependencyError if they, or what they bind, are missing."""
    try:
        import cuda.core  # noqa: F401
        from cuda.bindings import nvrtc
        from cuda.pathfinder import DynamicLibNotFoundError
    except ImportError as error:
        raise MissingDependencyError.extra("cuda-core or cuda-bindings", "cuda") from error
    try:
        nvrtc.nvrtcVersion()
    except DynamicLibNotFoundError as error:
        raise MissingDependencyError.extra("NVRTC", "cuda") from error
    return nvrtc
