"""difftool bench: figures, ratios, the best batch, and no figure for what is wrong."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from difftool.bundle import STEP, Bundle, read_bundle
from difftool.bundle.amend import with_files
from difftool.runtime.backends import aot_inductor
from difftool.runtime.backends.aot_inductor import open_package
from tests.cli.conftest import Command
from tests.fixtures import package_digest
from tests.runtime.test_backends_gpu import cuda_runtime  # noqa: F401

QUICK = ("--rounds", 2, "--threads", 1, "--json")


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("difftool.runtime.bench.ROUND_SECONDS", 0.01)


@pytest.fixture
def perturbed(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The tiny bundle with the weights of one layer 5 % off, and a manifest that agrees."""
    folder = tmp_path / "perturbed"
    shutil.copytree(tiny_bundle, folder)
    graph = onnx.load(folder / STEP)
    weight = next(w for w in graph.graph.initializer if "conv_out.weight" in w.name)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.05, weight.name))
    return with_files(read_bundle(folder), {STEP: graph.SerializeToString()}).path


def test_the_document_holds_every_batch_and_the_best(difftool: Command, tiny_bundle: Path) -> None:
    found = difftool("bench", tiny_bundle, "--batch", "2,1", *QUICK).json()
    bundle: Bundle = read_bundle(tiny_bundle)
    assert found["nfe"] == len(bundle.default_program())
    assert (found["backend"], found["precision"]) == ("onnxruntime-cpu", "fp32")
    assert [result["batch"] for result in found["results"]] == [1, 2]
    for result in found["results"]:
        step, image = result["ms_per_step"], result["ms_per_image"]
        assert 0 < step["q1"] <= step["median"] <= step["q3"] <= step["p90"] <= step["p99"]
        assert image["median"] == pytest.approx(step["median"] * found["nfe"] / result["batch"])
        rounds = result["round_ms_per_step"]
        per_second = 1e3 * result["batch"] / (np.median(rounds) * found["nfe"])
        assert result["images_per_second"] == pytest.approx(per_second)
        assert len(rounds) == 2
    speeds = {result["batch"]: result["images_per_second"] for result in found["results"]}
    assert speeds[found["best_max_batch"]] >= 0.97 * max(speeds.values())
    assert found["peak_memory_mib"] is None or found["peak_memory_mib"] > 20


def test_peers_have_ratios(difftool: Command, tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    peer = ("--against", "torch", "--checkpoint", tiny_checkpoint)
    done = difftool("bench", tiny_bundle, *peer, "--batch", 1, *QUICK)
    assert done.code == 0
    found = json.loads(done.out)
    ours, torch = found["results"]
    assert (ours["on"], torch["on"]) == ("onnxruntime-cpu fp32", "torch fp32")
    assert "ratio" not in ours
    by_round = np.divide(torch["round_ms_per_step"], ours["round_ms_per_step"])
    assert torch["ratio"] == pytest.approx(np.median(by_round))
    assert found["parity"]["reference"] == "torch fp32"
    assert found["parity"]["onnxruntime-cpu fp32"]["step_error"] < 1e-5


def test_a_package_is_a_peer_unasked_if_it_may_run(
    difftool: Command, packaged_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("bench", packaged_bundle, "--batch", 1, *QUICK)
    digest = package_digest(read_bundle(packaged_bundle))
    found = difftool(*line, "--trust", digest).json()
    ours, package = found["results"]
    assert (ours["on"], package["on"]) == ("onnxruntime-cpu fp32", "aot-inductor fp32")
    assert package["verdict"] == "valid"
    assert found["parity"]["aot-inductor fp32"]["step_error"] < 1e-5
    opened = []

    def counted(*asked: Any, **named: Any) -> Any:
        opened.append(asked)
        return open_package(*asked, **named)

    with monkeypatch.context() as patch:
        patch.setattr(aot_inductor, "open_package", counted)
        asked = difftool(*line, "--trust", digest, "--backend", "aot-inductor").json()["results"]
    assert [result["on"] for result in asked] == ["aot-inductor fp32"]
    assert len(opened) == 1
    monkeypatch.setenv("DIFFTOOL_CACHE", "empty")
    alone = difftool(*line).json()["results"]
    assert [result["on"] for result in alone] == ["onnxruntime-cpu fp32"]


def test_no_timing_if_perturbed(difftool: Command, perturbed: Path, tiny_checkpoint: Path) -> None:
    options = ("--checkpoint", tiny_checkpoint, "--batch", 1, "--arg", "clip=false")
    line = ("bench", perturbed, *options)
    done = difftool(*line, *QUICK)
    assert done.code == 1
    found = json.loads(done.out)
    assert found["results"] == [{"batch": 1, "on": "onnxruntime-cpu fp32", "verdict": "INVALID"}]
    assert found["best_max_batch"] is None
    assert not found["parity"]["onnxruntime-cpu fp32"]["passed"]
    done = difftool(*line, *QUICK[:-1])
    assert done.code == 1
    row = next(text for text in done.out.splitlines() if text.startswith("1 "))
    assert row.split() == ["1", "onnxruntime-cpu", "fp32", "INVALID"]


def test_people_get_a_table(difftool: Command, tiny_bundle: Path) -> None:
    done = difftool("bench", tiny_bundle, "--batch", "1,2", *QUICK[:-1])
    assert done.code == 0
    lines = done.out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("batch "))
    assert [line.split()[0] for line in lines[head : head + 3]] == ["batch", "1", "2"]
    assert "best max_batch" in lines[head + 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--against", "diffusers"), "run benchmarks/against_peers.py"),
        (("--against", "torch"), "give --checkpoint RUN"),
        (("--against", "abacus"), "unknown backend"),
        (("--batch", "0"), "names no sizes"),
        (("--batch", "one"), "names no sizes"),
        (("--batch", "1" * 5000), "names no sizes"),
        (("--rounds", "0"), "0 rounds"),
        (("--rounds", "1" * 30), "1 to 10000 rounds"),
        (("--threads", "1" * 30), "1 to 1024"),
    ],
)
def test_refusals(
    difftool: Command, tiny_bundle: Path, options: tuple[str, ...], message: str
) -> None:
    done = difftool("bench", tiny_bundle, *options)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


@pytest.mark.usefixtures("cuda_runtime")
def test_a_gpu_beside_a_cpu(
    difftool: Command, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("difftool.runtime.bench.peak_memory", lambda *_, device, **__: device)
    line = ("bench", tiny_bundle, "--backend", "onnxruntime-cuda:tf32", "--device", 1)
    done = difftool(*line, "--against", "onnxruntime-cpu", "--batch", 1, *QUICK)
    found = json.loads(done.out)
    assert (found["backend"], found["precision"]) == ("onnxruntime-cuda", "tf32")
    assert (found["device"], found["peak_memory_mib"]) == ("a fake GPU", 1)
    assert found["cuda_graphs"]
    ours, theirs = (result["on"] for result in found["results"])
    assert (ours, theirs) == ("onnxruntime-cuda tf32", "onnxruntime-cpu fp32")
