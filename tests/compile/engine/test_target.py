"""The meaning of GPUs and of a profile, and what has none."""

import sys
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from difftool.cli.trt import profile_from
from difftool.compile import engine_request
from difftool.compile.engine.target import resolve_target
from difftool.errors import MissingDependencyError, UsageError, install_hint, pip_install
from difftool.runtime.variants import VARIANTS, installed_variants
from tests.oracles.tensorrt_api import stand_in

RTX = pytest.mark.skipif(
    "tensorrt-rtx" not in [variant.name for variant in installed_variants()],
    reason="needs tensorrt-rtx",
)


@RTX
def test_gpus_are_put_in_order_and_named_once() -> None:
    target = resolve_target(("sm120", " SM89", "sm120"))
    assert target.variant.name == "tensorrt-rtx"
    assert target.gpus == ("sm89", "sm120")


@RTX
@pytest.mark.parametrize("gpu", ["sm90", "sm89,sm10", "hopper"])
def test_a_gpu_that_is_not_built_for_is_refused(gpu: str) -> None:
    unknown = gpu.split(",")[-1]
    with pytest.raises(UsageError, match=f"does not build for {unknown}") as caught:
        resolve_target(gpu.split(","))
    assert "it builds for sm75, sm80, sm86, sm89, sm120" in caught.value.hint
    assert "pip install --extra-index-url https://pypi.nvidia.com" in caught.value.hint


@RTX
def test_no_gpu_is_no_target() -> None:
    with pytest.raises(UsageError, match="names no GPU"):
        resolve_target((" ", ""))


@RTX
def test_the_current_gpu_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = MissingDependencyError("no NVIDIA GPU can be used here", "look for one")
    no_device = Mock(side_effect=absent)
    monkeypatch.setattr("difftool.runtime.cuda.cuda_device.open_device", no_device)
    with pytest.raises(MissingDependencyError, match="no NVIDIA GPU") as caught:
        resolve_target(("current",))
    assert caught.value.hint.startswith("name the GPUs to build for: `gpus=sm75,")


@RTX
@pytest.mark.parametrize(
    ("arch", "gpus"), [("sm_89", ("sm89",)), ("sm_120", ("sm120",)), ("sm_90", None)]
)
def test_the_current_gpu_is_named(
    arch: str, gpus: tuple[str, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = SimpleNamespace(arch=arch, name="NVIDIA Something")
    monkeypatch.setattr("difftool.runtime.cuda.cuda_device.open_device", lambda: device)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    if gpus is None:
        with pytest.raises(MissingDependencyError, match=r"for NVIDIA Something \(sm90\)"):
            resolve_target(("current",))
    else:
        assert resolve_target(("current",)).gpus == gpus


@pytest.fixture
def on_site(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """TensorRT, with or without TensorRT for RTX, on an H100. Call it with a version."""
    device = SimpleNamespace(arch="sm_90", name="NVIDIA H100 80GB HBM3")
    opened = Mock(return_value=device)
    monkeypatch.setattr("difftool.runtime.cuda.cuda_device.open_device", opened)

    def install(version: str, *, rtx: bool = False) -> Mock:
        monkeypatch.setitem(sys.modules, "tensorrt", stand_in(version))
        rtx_module = stand_in("rtx-1.7") if rtx else None
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", rtx_module)
        return opened

    return Mock(side_effect=install)


@pytest.mark.parametrize("rtx", [False, True])
@pytest.mark.parametrize("gpu", ["current", "sm90", " SM90 "])
@pytest.mark.parametrize(
    ("version", "built_for"),
    [("10.7", "NVIDIA H100 80GB HBM3"), ("10.13", "sm90"), ("11.4", "sm90")],
)
def test_the_gpu_that_is_here_may_be_named(
    on_site: Mock, version: str, built_for: str, gpu: str, rtx: bool
) -> None:
    on_site(version, rtx=rtx)
    target = resolve_target((gpu,))
    assert (target.variant.name, target.gpus) == ("tensorrt", (built_for,))


@pytest.mark.parametrize("gpus", [("sm100",), ("sm90", "sm100"), ("hopper",)])
def test_tensorrt_builds_for_no_other_gpu(on_site: Mock, gpus: tuple[str, ...]) -> None:
    opened = on_site("11.4")
    with pytest.raises(UsageError, match=r"here is NVIDIA H100 80GB HBM3 \(sm90\), and Tens") as no:
        resolve_target(gpus)
    assert no.value.hint.startswith("use `gpus=current`; for")
    opened.side_effect = MissingDependencyError("no NVIDIA GPU can be used here")
    with pytest.raises(MissingDependencyError, match="only on such a GPU: no NVIDIA GPU") as absent:
        resolve_target(gpus)
    assert absent.value.hint.startswith(f"run it on a machine with {', '.join(gpus)}")


def test_what_tensorrt_for_rtx_builds_needs_no_gpu(on_site: Mock) -> None:
    opened = on_site("11.4", rtx=True)
    opened.side_effect = MissingDependencyError("no NVIDIA GPU can be used here")
    assert resolve_target(("sm89", "sm120")).variant.name == "tensorrt-rtx"


def test_without_tensorrt_the_error_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIANTS:
        monkeypatch.setitem(sys.modules, name.replace("-", "_"), None)
    with pytest.raises(MissingDependencyError) as caught:
        resolve_target(("sm89",))
    assert caught.value.message == "TensorRT is not installed"
    assert caught.value.hint == (
        f"{install_hint('trt-rtx')}, or for GPUs of data centres: "
        f"{pip_install('trt', '--extra-index-url https://pypi.nvidia.com')}"
    )


def test_a_profile_is_three_sizes_in_order() -> None:
    assert profile_from("1, 8,64") == (1, 8, 64)
    assert profile_from(None) is None
    for text in ("1,8", "1,8,x", "-1,1,2", ""):
        with pytest.raises(UsageError, match="is not three numbers"):
            profile_from(text)


@RTX
@pytest.mark.parametrize("profile", [(4, 2, 1), (0, 1, 2)])
def test_a_profile_out_of_order_is_refused(profile: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="out of order"):
        engine_request(("sm89",), profile=profile)
    assert engine_request(("sm89",), profile=(4, 4, 4)).profile == (4, 4, 4)
