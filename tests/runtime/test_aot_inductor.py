"""AOTInductor packages: PyTorch's samples, through the driver, if their maker is trusted."""

import contextlib
import json
import shutil
import stat
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from difftool.bundle import Bundle, read_bundle
from difftool.bundle.amend import with_files
from difftool.diffusion.samplers import ddpm, unipc
from difftool.errors import ArtefactError, MissingDependencyError, ResourceError
from difftool.networks.trained import load_checkpoint
from difftool.runtime import Model, Request, load
from difftool.runtime.backends import aot_inductor
from difftool.runtime.backends.aot_inductor import PackageEngine, open_package
from difftool.runtime.cuda.host_device import HostDevice
from difftool.runtime.edits import inpaint
from difftool.runtime.opening import open_backend
from difftool.verify.eager import Eager
from tests.fixtures import package_digest
from tests.runtime.cuda.fake import FakeDevice

PACKAGE = "step.pt2"


@pytest.fixture(scope="module")
def packaged(packaged_bundle: Path) -> Bundle:
    return read_bundle(packaged_bundle)


@pytest.fixture(scope="module")
def model(packaged: Bundle) -> Model:
    """The package, opened."""
    digest = package_digest(packaged)
    return load(packaged, backend="aot-inductor", threads=1, max_batch=3, trust=[digest])


def test_it_draws_the_samples_of_eager_torch(
    packaged: Bundle, model: Model, tiny_checkpoint: Path
) -> None:
    loaded = load_checkpoint(tiny_checkpoint)
    eager = Eager(loaded.network, loaded.spec, packaged.features)
    torch_model = Model(packaged, eager, max_batch=3)
    for sampler in (ddpm, unipc):  # one slot of history, and several
        program = sampler(model.spec, steps=20)
        runs = [opened.sample(program, n=4, seed=2) for opened in (model, torch_model)]
        np.testing.assert_allclose(*runs, atol=1e-5)  # in batches of 3 and of 1


def test_threads_are_those_of_the_thread_that_runs(packaged: Bundle) -> None:
    """And of no other: not of the caller's, nor of threads that begin later."""

    def others() -> list[int]:
        with ThreadPoolExecutor(1) as fresh:
            return [torch.get_num_threads(), fresh.submit(torch.get_num_threads).result()]

    before = others()
    threads = before[0] + 1
    seen: list[int] = []
    opened = load(
        packaged, backend="aot-inductor", threads=threads, trust=[package_digest(packaged)]
    )
    loader = opened.backend.engine._loader  # type: ignore[attr-defined]

    def run(inputs: list[Any]) -> Any:
        seen.append(torch.get_num_threads())
        return loader.run(inputs)

    opened.backend.engine._loader = SimpleNamespace(run=run)  # type: ignore[attr-defined]
    opened.sample(ddpm(opened.spec, steps=2), n=1)
    assert set(seen) == {threads}
    assert others() == before


def test_requests_share_its_steps(model: Model) -> None:
    program = ddpm(model.spec, steps=6)
    asked = [{"n": n, "seed": n, "deterministic": True} for n in (1, 4)]
    tickets = [model.submit(Request(program, **each)) for each in asked]  # type: ignore[arg-type]
    for ticket, each in zip(tickets, asked, strict=True):
        assert np.array_equal(ticket.result(), model.sample(program, **each))  # type: ignore[arg-type]


def test_it_keeps_known_values(packaged: Bundle, model: Model) -> None:
    mask = np.zeros((1, 8, 8), np.float32)
    mask[:, :4] = 1
    edit = inpaint(np.full((1, 8, 8), 0.5, np.float32), mask)
    cpu = load(packaged, backend="onnxruntime-cpu", threads=1, max_batch=3)
    runs = [opened.sample(n=4, edit=edit) for opened in (model, cpu)]
    np.testing.assert_allclose(*runs, atol=1e-5)
    assert (runs[0][:, :, :4] == 0.5).all()


def test_it_is_opened_if_named_and_trusted(
    packaged: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loader = Mock(side_effect=AssertionError("the package was opened"))
    loader.load_metadata_from_package.side_effect = AssertionError("the package was opened")
    monkeypatch.setattr(torch._C._aoti, "AOTIModelPackageLoader", loader)
    monkeypatch.setenv("DIFFTOOL_CACHE", str(tmp_path / "empty"))
    assert open_backend(packaged, None, threads=1).name != "aot-inductor"
    sha256 = package_digest(packaged)
    with pytest.raises(ArtefactError, match=rf"was made elsewhere.* {sha256} .*`trust`"):
        open_package(packaged, trusted=["0" * 64])
    with pytest.raises(ArtefactError, match="the package was opened"):
        open_package(packaged, trusted=[sha256])


def test_the_bytes_that_were_judged_are_opened(
    packaged: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Path] = []
    real = torch._C._aoti.AOTIModelPackageLoader

    def watched(path: str, *arguments: Any) -> Any:
        seen.append(Path(path))
        assert seen[0].read_bytes() == packaged.read(PACKAGE)
        assert stat.S_IMODE(seen[0].parent.stat().st_mode) == 0o700
        return real(path, *arguments)

    watched.load_metadata_from_package = real.load_metadata_from_package  # type: ignore[attr-defined]
    monkeypatch.setattr(torch._C._aoti, "AOTIModelPackageLoader", watched)
    open_package(packaged, threads=1, trusted=[package_digest(packaged)])
    assert packaged.path not in seen[0].parents
    assert not seen[0].parent.exists()

    changed = read_bundle(shutil.copytree(packaged.path, tmp_path / "changed"))
    size = changed.manifest.files[PACKAGE].size
    (changed.path / PACKAGE).write_bytes(b"x" * size)
    with pytest.raises(ArtefactError, match="differs from its digest"):
        open_package(changed, trusted=[package_digest(packaged)])


def test_none_or_a_damaged_one(packaged: Bundle, tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"has no step\.pt2 .*`aot`"):
        load(tiny_bundle, backend="aot-inductor")
    with pytest.raises(MissingDependencyError, match=r"has no step\.fp16\.pt2 .*`aot`"):
        load(packaged, backend="aot-inductor", precision="fp16")
    whole = packaged.read(PACKAGE)
    for number, data in enumerate((b"not a package", whole[: len(whole) // 2])):
        copy = read_bundle(shutil.copytree(packaged.path, tmp_path / str(number)))
        damaged = with_files(copy, {PACKAGE: data})
        with pytest.raises(ArtefactError, match=r"torch refuses .*step\.pt2.*`aot`"):
            open_package(damaged, trusted=[package_digest(damaged)])


def test_one_of_another_machine(packaged: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(what: str) -> None:
        with pytest.raises(MissingDependencyError, match=f"was made for {what}.*`aot`"):
            open_package(packaged, trusted=[package_digest(packaged)])

    with monkeypatch.context() as patch:
        patch.setattr(aot_inductor, "cpu_features", lambda: set())
        refused("a CPU with ")
    with monkeypatch.context() as patch:
        patch.setattr(aot_inductor.platform, "machine", lambda: "vax")
        refused(sys.platform)
    features = json.dumps(sorted(aot_inductor.cpu_features()))
    gpu = {
        "AOTI_DEVICE_KEY": "cuda",
        "AOTI_COMPUTE_CAPABILITY": "90",
        "AOTI_PLATFORM": sys.platform,
        "AOTI_MACHINE": aot_inductor.platform.machine(),
        aot_inductor.FEATURES: features,
    }
    loader = Mock(load_metadata_from_package=lambda *_: gpu)
    monkeypatch.setattr(torch._C._aoti, "AOTIModelPackageLoader", loader)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused("cuda 90")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: (12, 0))
    refused("cuda 90")


def test_a_gpu_that_is_not_there(
    points_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch raises an AssertionError of its own for such a number."""
    copy = read_bundle(shutil.copytree(points_bundle, tmp_path / "gpu"))
    bundle = with_files(copy, {PACKAGE: b"a package"})
    metadata = {
        "AOTI_DEVICE_KEY": "cuda",
        "AOTI_COMPUTE_CAPABILITY": "90",
        "AOTI_PLATFORM": sys.platform,
        "AOTI_MACHINE": aot_inductor.platform.machine(),
        aot_inductor.FEATURES: "[]",
    }
    loader = Mock(load_metadata_from_package=lambda *_: metadata)
    monkeypatch.setattr(torch._C._aoti, "AOTIModelPackageLoader", loader)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", Mock(side_effect=AssertionError("Invalid device id"))
    )
    with pytest.raises(MissingDependencyError, match="there is no GPU 2: torch sees 2"):
        open_package(bundle, number=2, trusted=[package_digest(bundle)])


def test_without_torch(packaged: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"torch is not .*'\S+\[train\]'"):
        open_package(packaged, trusted=[package_digest(packaged)])


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("a fault\nat length", ArtefactError, "torch failed: a fault "),
        ("DefaultCPUAllocator: can't allocate memory", ResourceError, "max_batch 1"),
        (None, ArtefactError, "outputs of other sizes"),
    ],
)
def test_a_run_that_fails(featured_bundle: Path, said: str | None, kind: type, words: str) -> None:
    def run(inputs: list[Any]) -> list[Any]:
        if said is not None:
            raise RuntimeError(said)
        return [torch.zeros(1) for _ in range(4)]

    device = HostDevice()
    loader = SimpleNamespace(run=run)
    engine = PackageEngine(read_bundle(featured_bundle), loader, device, exact=True)
    runs = engine.bind([buffers(device)]).runs
    with pytest.raises(kind, match=words):
        runs[0]()


def test_on_a_gpu_it_shares_stream_and_memory(
    featured_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calls alone: there is no GPU here."""
    log: list[Any] = []

    @contextlib.contextmanager
    def place(*what: Any, **flags: Any) -> Iterator[None]:
        log.append((*what, flags))
        yield

    fake = SimpleNamespace(
        cuda=SimpleNamespace(
            MemPool=lambda: "pool",
            ExternalStream=lambda handle: f"stream {handle}",
            stream=place,
            use_mem_pool=place,
        ),
        backends=SimpleNamespace(cudnn=SimpleNamespace(flags=place)),
        as_tensor=lambda shared, device: Shared(shared),
    )
    monkeypatch.setattr(aot_inductor, "import_torch", lambda: fake)

    class Shared:
        def __init__(self, interface: Any) -> None:
            self.seen = interface.__cuda_array_interface__
            self.shape = self.seen["shape"]
            self.copied: Any = None

        def copy_(self, other: Any) -> None:
            log.append(self.seen["data"][0])

    device = FakeDevice()
    tensors = buffers(device)
    names = ("x_next", "history_next", "row_next", "denoised")
    given: list[Any] = []

    def run(inputs: list[Any]) -> list[Any]:
        given.extend(inputs)
        return [SimpleNamespace(shape=tensors[name].shape) for name in names]

    loader = SimpleNamespace(run=run)
    engine = PackageEngine(read_bundle(featured_bundle), loader, device, exact=True)
    bound = engine.bind([tensors])
    bound.runs[0]()
    assert bound.capturable
    exact = {"enabled": True, "allow_tf32": False}
    assert log[:3] == [(exact,), ("stream 7", {}), ("pool", {})]
    assert log[3:] == [tensors[name].address for name in names]
    order = ("x", "history", "row", "noise", "table", "cond_table", "known", "mask")
    expected = [(tensors[name].address, tensors[name].dtype.str) for name in order]
    assert [(one.seen["data"][0], one.seen["typestr"]) for one in given] == expected


def buffers(device: Any) -> dict[str, Any]:
    """Buffers of two samples."""
    image, history = (2, 1, 8, 8), (1, 2, 1, 8, 8)
    shapes = {"x": image, "noise": image, "known": image, "mask": image, "denoised": image}
    shapes |= {"history": history, "history_next": history, "x_next": image}
    shapes |= {"table": (5, 19), "cond_table": (5, 40)}
    made = {name: device.allocate(shape, np.float32) for name, shape in shapes.items()}
    return made | {name: device.allocate((2,), np.int64) for name in ("row", "row_next")}
