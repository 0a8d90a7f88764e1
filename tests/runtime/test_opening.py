"""The backend that runs a bundle: by name, or the first that works; and why not another."""

from collections.abc import Callable
from unittest.mock import patch

import pytest

from difftool.bundle import Bundle
from difftool.errors import ArtefactError, DifftoolError, MissingDependencyError, UsageError
from difftool.runtime import Model, load, variants
from difftool.runtime.backends import onnxruntime_cuda, tensorrt
from difftool.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu
from difftool.runtime.backends.reference import Reference
from difftool.runtime.backends.table import BACKENDS
from difftool.runtime.cuda import cuda_device
from difftool.runtime.opening import open_backend
from difftool.runtime.variants import Variant
from tests.fixtures import ENGINE_KEY
from tests.runtime.conftest import Keep

AUTOMATIC = [row.name for row in BACKENDS if "fp32" in row.automatic]


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_device, "has_driver", lambda: False)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine with a driver, on which opening a GPU backend is noted and fails."""
    tried = []

    def refuse(name: str) -> Callable[..., None]:
        def open_it(*_: object, **__: object) -> None:
            tried.append(name)
            raise MissingDependencyError("not here")

        return open_it

    monkeypatch.setattr(cuda_device, "has_driver", lambda: True)
    monkeypatch.setattr(tensorrt, "open_asked", refuse("tensorrt"))
    monkeypatch.setattr(onnxruntime_cuda, "open_asked", refuse("onnxruntime-cuda"))
    return tried


@pytest.mark.parametrize("name", [None, "auto", "auto:fp32"])
def test_the_first_that_works(bundle: Bundle, gpu: list[str], name: str | None) -> None:
    assert open_backend(bundle, name, threads=1).name == "onnxruntime-cpu"
    assert gpu == AUTOMATIC[:-1]


def test_the_fastest(bundle: Bundle, gpu: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fast = OnnxRuntimeCpu(bundle, threads=1)
    monkeypatch.setattr(onnxruntime_cuda, "open_asked", lambda *_: fast)
    assert open_backend(bundle, None, threads=1) is fast
    assert gpu == ["tensorrt"]


@pytest.mark.usefixtures("gpu")
def test_a_damaged_engine_is_no_reason_to_take_another_backend(bundle: Bundle) -> None:
    damaged = ArtefactError("the engine differs from its digest")
    with (
        patch.object(tensorrt, "open_asked", side_effect=damaged),
        pytest.raises(ArtefactError, match="differs from its digest"),
    ):
        open_backend(bundle, None, threads=1)


def test_without_a_driver_no_gpu_is_tried(bundle: Bundle, gpu: list[str], no_gpu: None) -> None:
    assert open_backend(bundle, None, threads=1).name == "onnxruntime-cpu"
    assert gpu == []


def test_a_backend_that_is_named_is_never_replaced(bundle: Bundle, gpu: list[str]) -> None:
    for name in AUTOMATIC[:-1]:
        with pytest.raises(MissingDependencyError, match="not here"):
            open_backend(bundle, name, threads=1)


UNASKED = {  # precision -> how to run it on the CPU
    "fp16": "for the CPU name `backend=onnxruntime-cpu`",
    "bf16": "for the CPU name `backend=openvino`",
    "fp8": "for the CPU name `backend=onnxruntime-cpu`",
    "tf32": "choose `precision=fp32`",
}


@pytest.mark.parametrize("precision", UNASKED)
def test_16_bits_never_run_on_the_cpu_unasked(
    bundle: Bundle, gpu: list[str], no_gpu: None, precision: str
) -> None:
    with pytest.raises(MissingDependencyError) as caught:
        open_backend(bundle, None, threads=None, precision=precision)
    why = f"no GPU runs {precision}: there is no NVIDIA GPU here, or no driver for it"
    assert (caught.value.message, caught.value.hint) == (why, UNASKED[precision])
    assert gpu == []


def test_all_that_the_gpu_backends_miss_is_told(
    bundle: Bundle, gpu: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "difftool")
    with pytest.raises(MissingDependencyError) as caught:
        open_backend(bundle, "auto:fp16", threads=None)
    why = "no GPU runs fp16: tensorrt: not here; onnxruntime-cuda: not here"
    assert (caught.value.message, caught.value.hint) == (why, UNASKED["fp16"])
    assert gpu == ["tensorrt", "onnxruntime-cuda"]
    assert caplog.messages == ["not tensorrt: not here", "not onnxruntime-cuda: not here"]


def test_int8_unasked_stays_on_the_cpu(bundle: Bundle, gpu: list[str]) -> None:
    with pytest.raises(ArtefactError, match=r"has no step\.int8\.onnx"):
        open_backend(bundle, None, threads=None, precision="int8")
    assert gpu == []


def test_a_device_is_never_replaced(bundle: Bundle, gpu: list[str]) -> None:
    with pytest.raises(UsageError, match="onnxruntime-cpu has no device 1"):
        open_backend(bundle, "onnxruntime-cpu", threads=None, device=1)
    with pytest.raises(UsageError, match="int8 runs on the CPU, which is no device 1"):
        open_backend(bundle, None, threads=None, precision="int8", device=1)
    with pytest.raises(UsageError, match="numbered from 0"):
        open_backend(bundle, None, threads=None, device=-1)
    assert gpu == []
    with pytest.raises(MissingDependencyError, match=r"no GPU runs fp32: .*leave `device` out"):
        open_backend(bundle, None, threads=None, device=1)
    assert gpu == AUTOMATIC[:-1]


@pytest.mark.parametrize("name", ["cuda", "tensor", "cuda:fp16", ""])
def test_an_unknown_backend_is_told_the_others(bundle: Bundle, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_backend(bundle, name, threads=1)
    assert caught.value.message == f"unknown backend {name.partition(':')[0]!r}"
    assert caught.value.hint == f"one of: auto, {', '.join(row.name for row in BACKENDS)}"


def test_a_precision_that_a_backend_lacks_is_told_the_backends_that_have_it(bundle: Bundle) -> None:
    for name, precision in (("openvino", "fp16"), ("openvino:fp16", "fp32")):
        with pytest.raises(UsageError, match="openvino has no fp16") as caught:
            open_backend(bundle, name, threads=1, precision=precision)
        assert caught.value.hint == (
            "it computes in fp32, bf16, int8; "
            "fp16 is of tensorrt, onnxruntime-cuda, onnxruntime-cpu, aot-inductor"
        )


@pytest.mark.parametrize("name", [None, "onnxruntime-cpu", "openvino", "torchscript"])
def test_zero_threads_are_refused_for_every_backend(bundle: Bundle, name: str | None) -> None:
    with pytest.raises(UsageError, match="0 threads"):
        open_backend(bundle, name, threads=0)


def described(bundle: Bundle, **options: str) -> DifftoolError:
    with pytest.raises(DifftoolError) as caught:
        tensorrt.open_tensorrt(bundle, **options)
    return caught.value


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> Variant:
    """TensorRT for RTX, as far as choosing an engine goes."""
    variant = Variant("tensorrt-rtx", ENGINE_KEY.version, object())
    monkeypatch.setattr(tensorrt, "installed_variants", lambda: [variant])
    return variant


@pytest.mark.usefixtures("no_gpu", "rtx")
def test_without_a_gpu_the_engine_is_said_to_be_good(bundle: Bundle, keep: Keep) -> None:
    keep()
    error = described(bundle)
    assert error.exit_code == 4
    assert "no NVIDIA GPU" in error.message
    assert "the engine is good, fp32 for sm89, sm120" in error.message


def test_without_tensorrt(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "installed_variants", list)
    error = described(bundle)
    assert error.exit_code == 4
    assert variants.install_line("tensorrt-rtx") in error.hint


class Chosen(Exception):
    """The engine that would be opened."""


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The precision of the engine that is opened on an sm_89 GPU."""

    class Gpu:
        name, arch = "a GPU", "sm_89"

        def __init__(self, number: int) -> None:
            assert number == 0

    def show(_: object, engine: tensorrt.Engine, *__: object) -> None:
        raise Chosen(engine.key.precision)

    monkeypatch.setattr(tensorrt, "open_device", Gpu)
    monkeypatch.setattr(tensorrt, "TensorRtEngine", show)

    def which(bundle: Bundle, name: str) -> str:
        with pytest.raises(Chosen) as caught:
            open_backend(bundle, name, threads=None)
        return str(caught.value)

    return which


@pytest.mark.usefixtures("rtx")
def test_an_engine_in_a_precision(bundle: Bundle, keep: Keep, opened: Callable[..., str]) -> None:
    for precision in ("int8", "fp16"):
        keep(precision=precision)
    assert opened(bundle, "tensorrt:int8") == "int8"
    with pytest.raises(MissingDependencyError) as caught:
        open_backend(bundle, "tensorrt", threads=None)
    assert caught.value.message.endswith("an engine in fp16 for this GPU, and none in fp32")
    assert caught.value.hint.startswith("choose `precision=fp16`, or: run: difftool compile")
    keep()
    assert opened(bundle, "tensorrt") == "fp32"
    with pytest.raises(MissingDependencyError, match=r"an engine in fp32 .*none in bf16"):
        open_backend(bundle, "tensorrt", threads=None, precision="bf16")
    with pytest.raises(UsageError, match="tensorrt has no fp7"):
        open_backend(bundle, "tensorrt:fp7", threads=None)


@pytest.mark.usefixtures("rtx", "opened")
def test_an_engine_for_another_gpu_or_version(bundle: Bundle, keep: Keep) -> None:
    keep(gpus=["sm120"])
    error = described(bundle)
    assert error.exit_code == 4
    assert "it is for sm120, and here is sm89" in error.message
    assert "difftool compile" in error.hint
    keep(version="1.6")
    assert "1.6" in described(bundle).message or "sm120" in described(bundle).message


def test_a_backend_says_how_many_samples_it_likes_together(bundle: Bundle) -> None:
    class Likes(Reference):
        best_batch = 9

    like, plain = (kind(lambda x, cond: x, bundle.spec.shape) for kind in (Likes, Reference))
    assert Model(bundle, like).max_batch == 9
    assert Model(bundle, like, max_batch=2).max_batch == 2
    assert Model(bundle, plain).max_batch == load(bundle).max_batch == 256


@pytest.mark.parametrize("threads", [0, -1, 1025, 10**30])
def test_numbers_of_threads_that_no_backend_can_have(bundle: Bundle, threads: int) -> None:
    with pytest.raises(UsageError, match=f"{threads} threads.*1 to 1024"):
        open_backend(bundle, "onnxruntime-cpu", threads=threads)
