"""NVRTC, for GPUs that this machine need not have."""

import os
import sys
from importlib import resources
from unittest.mock import Mock

import pytest

from difftool.errors import MissingDependencyError, UsageError
from difftool.runtime.cuda import compile as compiler
from difftool.runtime.cuda.compile import KERNELS, cubin, kept_cubin
from difftool.runtime.engine_cache import EngineCache

EM_CUDA = 190  # the machine of an ELF file, as the ELF registry numbers it


@pytest.fixture
def nvrtc() -> None:
    """Skip if cuda-core or NVRTC is missing; CI must have them."""
    try:
        cubin("noise", "sm_90")
    except MissingDependencyError as error:
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent(f"needs {error.message.partition(' is ')[0]}")


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_120"])
@pytest.mark.parametrize(
    ("name", "kernel"), [("noise", "noise"), ("loop", "loop"), ("slots", "gather")]
)
@pytest.mark.usefixtures("nvrtc")
def test_kernels_compile_for_gpus_of_all_ages(name: str, kernel: str, arch: str) -> None:
    code = cubin(name, arch)
    assert code.startswith(b"\x7fELF")
    assert int.from_bytes(code[18:20], "little") == EM_CUDA
    assert f"difftool_{kernel}".encode() in code  # extern "C": found by its plain name


@pytest.mark.usefixtures("nvrtc")
def test_a_gpu_that_nvrtc_does_not_know_is_named() -> None:
    with pytest.raises(UsageError, match=r"'sm_30' \(it knows .*sm_80.*sm_90"):
        cubin("noise", "sm_30")


@pytest.mark.parametrize("library", ["cuda.core", "cuda.bindings", "cuda.pathfinder"])
def test_missing_libraries_are_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\S+\[cuda\]'"):
        cubin("noise", "sm_90")


@pytest.mark.usefixtures("nvrtc")
def test_missing_nvrtc_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from cuda.bindings import nvrtc
    from cuda.pathfinder import DynamicLibNotFoundError

    absent = Mock(side_effect=DynamicLibNotFoundError("libnvrtc.so.13"))
    monkeypatch.setattr(nvrtc, "nvrtcVersion", absent)
    with pytest.raises(MissingDependencyError, match=r"NVRTC .* '\S+\[cuda\]'"):
        cubin("noise", "sm_90")


def test_the_sources_are_data_of_the_package() -> None:
    folder = resources.files("difftool.runtime.cuda") / "kernels"
    names = {"noise.cu", "loop.cu", "philox.cuh", "portable.cuh"}
    assert names <= {file.name for file in folder.iterdir()}
    assert (folder / "noise.cu").read_text("utf-8") == (KERNELS / "noise.cu").read_text("utf-8")


@pytest.fixture
def compiled(nvrtc: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what has been compiled since; the code is the name alone."""
    done: list[str] = []

    def compiles(name: str, arch: str) -> bytes:
        done.append(f"{name} {arch}")
        return done[-1].encode()

    monkeypatch.setattr(compiler, "cubin", compiles)
    return done


def test_a_kernel_is_compiled_once_for_a_gpu_and_a_compiler(
    cache: EngineCache, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        for arch in ("sm_80", "sm_90"):
            assert kept_cubin("noise", arch) == f"noise {arch}".encode()
    assert compiled == ["noise sm_80", "noise sm_90"]
    from cuda.bindings import nvrtc

    monkeypatch.setattr(nvrtc, "nvrtcVersion", lambda: (0, 99, 0))
    assert kept_cubin("noise", "sm_90") == b"noise sm_90"
    monkeypatch.setattr(compiler, "_OPTIONS", {**compiler._OPTIONS, "fma": True})
    assert kept_cubin("noise", "sm_90") == b"noise sm_90"
    assert len(compiled) == len(list(cache.folder.iterdir())) == 4
    assert cache.clear() > 0
    assert list(cache.folder.glob("*.cubin")) == []


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 32 + b"not the code"])
def test_a_damaged_kernel_is_compiled_anew(
    cache: EngineCache, compiled: list[str], damage: bytes
) -> None:
    code = kept_cubin("noise", "sm_90")
    (file,) = cache.folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage)
    assert kept_cubin("noise", "sm_90") == code
    assert compiled == ["noise sm_90"] * 2
    assert file.read_bytes() == whole


@pytest.mark.skipif(os.name != "posix", reason="needs file modes")
def test_a_cache_that_others_can_write_to_is_not_used(
    cache: EngineCache, compiled: list[str]
) -> None:
    kept_cubin("noise", "sm_90")
    cache.folder.chmod(0o777)
    kept_cubin("noise", "sm_90")
    assert len(compiled) == 2
