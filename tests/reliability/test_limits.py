"""The limits of docs/bundles.md hold, and are looked at before anything of the size is made."""

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import onnx
import pytest
from onnx import helper

from difftool.bundle import MANIFEST, Limits, read_bundle, write_manifest
from difftool.cli import main, options
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.program import MAX_ROWS
from difftool.diffusion.samplers import SAMPLERS, compile_program
from difftool.diffusion.schedules import MAX_LEVELS, schedule_from_dict
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError, ResourceError, UsageError
from difftool.files import parse_json, read_json
from difftool.preflight import GraphLimits, read_graph
from difftool.runtime import load
from difftool.runtime.model import MAX_WORK, Model

HUGE = 10**12


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def refused(action: Callable[[], object], code: str) -> None:
    with pytest.raises(ArtefactError) as caught:
        action()
    assert caught.value.code == code


def test_too_much_work_allocates_nothing(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocate = Mock(side_effect=AssertionError("allocated"))
    numbers = 64 * 20  # of a sample, times steps
    model = load(tiny_bundle, backend="onnxruntime-cpu", max_work=3 * numbers)
    assert model.sample(n=3).shape == (3, 1, 8, 8)
    monkeypatch.setattr(Model, "_allocate", allocate)
    monkeypatch.setattr(model.backend, "batch", allocate)
    for draw in (model.sample, lambda n: next(model.stream(n=n))):
        with pytest.raises(ResourceError, match=f"{4 * numbers} numbers; {3 * numbers} are"):
            draw(n=4)
    usual = load(tiny_bundle, backend="onnxruntime-cpu")
    with pytest.raises(ResourceError, match=f"{MAX_WORK} are allowed"):
        usual.sample(n=MAX_WORK // numbers + 1)


def test_flags_of_limits(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["sample", str(tiny_bundle), "-n", "2", "--out", str(tmp_path / "x.npy")]
    assert main([*line, "--max-work", "2559"]) == 5
    assert "--max-work 2560" in capsys.readouterr().err
    assert main([*line, "--max-bundle", "1e-5"]) == 3
    assert "[bundle-limit]" in capsys.readouterr().err
    assert main([*line, "--max-work", "2560", "--max-bundle", "0.1"]) == 0
    assert options.MAX_WORK == MAX_WORK


def test_the_limit_of_memory_is_that_of_the_flag(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[Limits]()

    def load(*_: object, limits: Limits, **__: object) -> None:
        asked.append(limits)
        raise ArtefactError("loaded")

    monkeypatch.setattr("difftool.runtime.load", load)
    line = ["sample", str(tiny_bundle), "--out", str(tmp_path / "x.npy")]
    assert [main(line), main([*line, "--max-memory", "0.5"])] == [3, 3]
    assert asked == [Limits(), Limits(memory_bytes=1 << 29)]
    assert main([*line, "--max-memory", "-1"]) == 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_sampler_makes_more_rows_than_the_limit(sampler: str, tiny_bundle: Path) -> None:
    spec = read_bundle(tiny_bundle).spec
    counts = [
        name
        for name, parameter in inspect.signature(SAMPLERS[sampler]).parameters.items()
        if name in ("steps", "resamples", "corrections") and parameter.annotation
    ]
    assert counts
    for name in counts:
        for count in (MAX_ROWS + 1, HUGE, 10**400):
            with pytest.raises(UsageError):
                compile_program(spec, SamplerCall(sampler, {name: count}))


def test_no_schedule_has_more_levels_than_the_limit() -> None:
    assert len(schedule_from_dict({"kind": "linear", "steps": 1000})) == 1000
    for value in (
        {"kind": "linear", "steps": MAX_LEVELS + 1},
        {"kind": "cosine", "steps": HUGE},
        {"kind": "geometric", "levels": HUGE, "sigma_min": 0.1, "sigma_max": 1.0},
        {"kind": "from_betas", "betas": [0.1] * (MAX_LEVELS + 1)},
    ):
        with pytest.raises(UsageError, match=f"at most {MAX_LEVELS} levels"):
            schedule_from_dict(value)


def test_no_sample_has_more_numbers_than_the_limit(tiny_bundle: Path) -> None:
    value = read_json(tiny_bundle / MANIFEST)["spec"]
    assert ModelSpec.from_dict({**value, "shape": [2**31 - 1]})
    with pytest.raises(UsageError, match="too large"):
        ModelSpec.from_dict({**value, "shape": [2**16, 2**15]})


def test_json_nests_as_deep_as_allowed(copy: Path) -> None:
    nested: Callable[[int], bytes] = lambda depth: b"[" * depth + b"]" * depth  # noqa: E731
    assert parse_json(nested(32), "x")
    with pytest.raises(ArtefactError, match="more than 32 deep"):
        parse_json(nested(33), "x")
    text = (copy / MANIFEST).read_text()
    (copy / MANIFEST).write_text(text + " " * ((1 << 20) - len(text) + 1))
    refused(lambda: read_bundle(copy), "bundle-json")


def test_a_bundle_is_as_large_as_allowed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total = sum(entry.size for entry in read_bundle(copy).manifest.files.values())
    read_bundle(copy, limits=Limits(bundle_bytes=total))
    refused(lambda: read_bundle(copy, limits=Limits(bundle_bytes=total - 1)), "bundle-limit")

    def change(size: int) -> None:
        manifest: dict[str, Any] = json.loads((copy / MANIFEST).read_text())
        manifest["files"]["step.onnx"]["size"] = size
        write_manifest(copy, manifest)

    change((8 << 30) + 1)  # nothing is read of files that are said to be so large
    monkeypatch.setattr("difftool.bundle.file_sha256", lambda path: pytest.fail("it was read"))
    refused(lambda: read_bundle(copy), "bundle-limit")


def chain(nodes: int, doc: str = "") -> bytes:
    """Return a graph of so many nodes, and of at least as many bytes as `doc`."""
    made = [helper.make_node("Neg", [f"t{i}"], [f"t{i + 1}"]) for i in range(nodes)]
    value = helper.make_tensor_value_info("t0", 1, ["n"])
    graph = helper.make_graph(made, "chain", [value], [], doc_string=doc)
    data: bytes = helper.make_model(graph).SerializeToString()
    return data


def test_a_graph_is_as_large_as_allowed() -> None:
    usual = GraphLimits()
    longest, longer, wide = chain(usual.nodes), chain(usual.nodes + 1), chain(1, "x" * (64 << 20))
    assert len(read_graph(longest, "g", limits=usual).nodes) == 20_000
    refused(lambda: read_graph(longer, "g", limits=usual), "graph-limit")
    assert len(read_graph(longer, "g", limits=GraphLimits(nodes=20_001)).nodes) == 20_001
    refused(lambda: read_graph(wide, "g", limits=usual), "graph-limit")
    assert len(read_graph(wide, "g", limits=GraphLimits(bytes=65 << 20)).nodes) == 1


def test_weights_do_not_count_as_a_graph() -> None:
    weight = onnx.TensorProto(name="w", data_type=1, dims=[17 << 20], raw_data=bytes(68 << 20))
    graph = helper.make_graph([], "weights", [], [], [weight])
    found = read_graph(helper.make_model(graph).SerializeToString(), "g", limits=GraphLimits())
    assert found.constants["w"].size == 68 << 20
