"""NVRTC, for GPUs that this machine need not have."""

import os
import sys
from importlib import resources
from unittest.mock import Mock

import pytest

from difftool.errors import MissingDependencyError, UsageError
from difftool.runtime.cuda.compile import KERNELS, cubin

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
@pytest.mark.parametrize("name", ["noise", "row"])
@pytest.mark.usefixtures("nvrtc")
def test_kernels_compile_for_gpus_of_all_ages(name: str, arch: str) -> None:
    code = cubin(name, arch)
    assert code.startswith(b"\x7fELF")
    assert int.from_bytes(code[18:20], "little") == EM_CUDA
    assert f"difftool_{name}".encode() in code  # extern "C": found by its plain name


@pytest.mark.usefixtures("nvrtc")
def test_a_gpu_that_nvrtc_does_not_know_is_named() -> None:
    with pytest.raises(UsageError, match=r"'sm_30' \(it knows .*sm_80.*sm_90"):
        cubin("noise", "sm_30")


@pytest.mark.parametrize("library", ["cuda.core", "cuda.bindings", "cuda.pathfinder"])
def test_missing_libraries_are_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'difftool\[cuda\]'"):
        cubin("noise", "sm_90")


@pytest.mark.usefixtures("nvrtc")
def test_missing_nvrtc_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from cuda.bindings import nvrtc
    from cuda.pathfinder import DynamicLibNotFoundError

    absent = Mock(side_effect=DynamicLibNotFoundError("libnvrtc.so.13"))
    monkeypatch.setattr(nvrtc, "nvrtcGetSupportedArchs", absent)
    with pytest.raises(MissingDependencyError, match=r"NVRTC .* 'difftool\[cuda\]'"):
        cubin("noise", "sm_90")


def test_the_sources_are_data_of_the_package() -> None:
    folder = resources.files("difftool.runtime.cuda") / "kernels"
    names = {"noise.cu", "row.cu", "philox.cuh", "portable.cuh"}
    assert names <= {file.name for file in folder.iterdir()}
    assert (folder / "row.cu").read_text("utf-8") == (KERNELS / "row.cu").read_text("utf-8")
