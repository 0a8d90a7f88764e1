"""difftool doctor: a true account of the installation, and an exit code that says if it works."""

import json
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import difftool as package
from difftool.errors import MissingDependencyError, install_hint
from difftool.runtime import load
from difftool.runtime import shipped as shipped_module
from difftool.runtime.backends import host
from difftool.runtime.backends.table import BACKENDS
from difftool.runtime.cuda import cuda_device
from tests.cli.conftest import Command
from tests.runtime.test_backends_gpu import cuda_runtime  # noqa: F401


@pytest.fixture
def shipped(points_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation whose shipped models are those beside `points_bundle`."""
    monkeypatch.setattr(shipped_module, "MODELS", points_bundle.parent)


@pytest.mark.usefixtures("shipped")
def test_a_whole_installation(difftool: Command, points_bundle: Path) -> None:
    value = difftool("doctor", points_bundle.name, "--json").json()
    assert value["problems"] == []
    assert value["versions"]["difftool"] == package.__version__
    assert value["versions"]["numpy"] == np.__version__
    assert value["onnxruntime_providers"] == onnxruntime.get_available_providers()
    assert list(value["models"]) == ["points"]
    assert value["backends"]["onnxruntime-cpu"]["state"] == "works"
    assert value["backends"]["onnxruntime-cpu"]["step_ms"] > 0
    assert list(value["backends"]) == [row.name for row in BACKENDS]
    assert value["backends"]["openvino"]["state"] == "works"
    assert value["versions"]["openvino"]
    assert value["backends"]["openvino"]["precisions"] == ["fp32", "bf16", "int8"]


@pytest.mark.usefixtures("shipped")
def test_the_backend_by_default_and_why_no_other(
    difftool: Command, points_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_device, "has_driver", lambda: False)
    value = difftool("doctor", points_bundle, "--json").json()
    backends = value["backends"]
    assert value["chosen"] == load(points_bundle).backend.name == "onnxruntime-cpu"
    assert backends["onnxruntime-cpu"]["automatic"] == ["fp32", "int8"]
    for name in (row.name for row in BACKENDS if row.automatic and row.gpu):
        assert backends[name]["step_ms"] is None
        reason = backends[name]["state"]
        assert "no NVIDIA GPU" in reason or "is not installed" in reason or "has no CUDA" in reason
    done = difftool("doctor", points_bundle, "--device", 1, "--json")
    assert (done.code, json.loads(done.out)["chosen"]) == (1, None)
    assert json.loads(done.out)["problems"] == ["no backend works on GPU 1"]
    # It would run code of the bundle, and is not tried.
    assert backends["torchscript"]["state"] == (
        "only by name, since it runs code of the bundle: --backend torchscript"
    )


@pytest.mark.usefixtures("shipped", "cuda_runtime")
def test_a_gpu(difftool: Command, points_bundle: Path) -> None:
    value = json.loads(difftool("doctor", points_bundle, "--device", 1, "--json").out)
    assert value["problems"] == []
    assert value["chosen"] == "onnxruntime-cuda"
    found = value["backends"]["onnxruntime-cuda"]
    assert (found["state"], found["device"]) == ("works", "a fake GPU")
    assert found["cuda_graphs"]
    assert "device" not in value["backends"]["onnxruntime-cpu"]
    assert "nvidia_driver" not in value["machine"]


@pytest.mark.usefixtures("shipped")
def test_a_driver_that_is_too_old(
    difftool: Command, points_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_device, "too_old_driver", lambda: "it is for CUDA 12.4")
    value = difftool("doctor", points_bundle, "--json").json()
    assert value["machine"]["nvidia_driver"] == "it is for CUDA 12.4"


@pytest.mark.usefixtures("shipped")
def test_a_backend_that_breaks(
    difftool: Command, points_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(host.HostBatch, "step", explode)
    done = difftool("doctor", points_bundle)
    assert done.code == 1
    assert "backend onnxruntime-cpu: no such instruction" in done.out


@pytest.mark.usefixtures("shipped")
def test_pytorch_is_tried(
    difftool: Command, points_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = difftool("doctor", points_bundle, "--json").json()["torch"]
    assert found == {"state": "works", "version": torch.__version__, "device": "cpu"}

    def explode(*_: object) -> None:
        raise RuntimeError("no such instruction")

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", explode)
        done = difftool("doctor", points_bundle)
    assert done.code == 1
    assert "\nproblem: torch: no such instruction (install it again)\n" in done.out
    monkeypatch.setitem(sys.modules, "torch", None)
    done = difftool("doctor", points_bundle)
    assert (done.code, install_hint("train") in done.out) == (0, True)


@pytest.mark.usefixtures("shipped")
def test_a_table_for_people(
    difftool: Command, points_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_device, "has_driver", lambda: False)
    done = difftool("doctor", points_bundle)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith(f"difftool {package.__version__}, Python ")
    assert lines[2].split() == ["backend", "version", "state", "a", "step"]
    table = lines[3 : lines.index("", 3)]
    assert max(map(len, table)) <= 80
    found = {line.split()[0]: line.split() for line in table}
    assert list(found) == [row.name for row in BACKENDS]
    for name in ("onnxruntime-cpu", "openvino"):
        row = found[name]
        assert row[1] == metadata.version(name.removesuffix("-cpu"))
        assert (row[2], row[4]) == ("works", "ms")
    assert found["onnxruntime-cuda"][1] == "-"  # of its packages, only those of CUDA are here
    assert found["torchscript"][2:4] == ["by", "name"]
    absent = [row.name for row in BACKENDS if row.gpu and not row.untried]
    assert {found[name][2] for name in absent} == {"not"}
    said = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if line[:2] == "  "}
    assert said["torchscript"] == "it runs code of the bundle"
    assert "pip install" in said["onnxruntime-cuda"], "on one line, so that it can be copied"
    assert set(absent) < set(said)
    assert lines[-2] == f"training: PyTorch {torch.__version__} works on CPU"
    assert lines[-1] == "nothing is broken; fp32 runs on onnxruntime-cpu by default"
    long = difftool("doctor", points_bundle, "--verbose").out
    assert "onnxruntime_providers" in long


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize(
    "error",
    [
        ImportError("libopenvino.so: cannot open shared object file"),
        ModuleNotFoundError("No module named 'numpy'", name="numpy"),
    ],
    ids=["a library", "a package that it needs"],
)
def test_an_installed_package_that_cannot_be_imported(
    error: ImportError, difftool: Command, points_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise MissingDependencyError.extra("openvino", "openvino") from error

    monkeypatch.setattr("difftool.runtime.backends.openvino.open_asked", broken)
    done = difftool("doctor", points_bundle, "--json")
    assert done.code == 1
    value = json.loads(done.out)
    assert value["backends"]["openvino"]["state"] == "broken"
    (problem,) = value["problems"]
    assert problem.startswith("backend openvino: it is installed, and cannot be imported: ")


@pytest.mark.usefixtures("shipped")
def test_a_package_that_is_not_there_is_no_problem(
    difftool: Command, points_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    done = difftool("doctor", points_bundle, "--json")
    assert (done.code, json.loads(done.out)["problems"]) == (0, [])


def test_without_models(difftool: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped_module, "MODELS", tmp_path / "models")
    done = difftool("doctor", "--json")
    assert done.code == 1
    assert len(json.loads(done.out)["problems"]) == 2  # no models, so nothing to try a backend with


def test_a_backend_that_is_not_installed(
    difftool: Command, points_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = difftool("doctor", points_bundle, "--json")
    state = json.loads(done.out)["backends"]["onnxruntime-cpu"]["state"]
    assert state == f"onnxruntime is not installed ({install_hint('cpu')})"
    assert done.code == 1  # there is no other
