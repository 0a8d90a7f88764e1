"""The sides of a comparison compute the same, and one that does not has no time."""

from argparse import Namespace
from pathlib import Path

import _peers
import against_peers
import numpy as np
import pytest
import torch
from _diffusers import NotTheirs, pipeline, unet
from _models import Prepared, export_network, few_rows, write_untrained
from _peers import SIDES, Setting, Side, Unavailable, step_error, tolerance
from against_peers import EAGER, FASTEST, OURS, PIPELINE, at_batch, comparisons

from difftool.bundle import read_bundle
from difftool.networks.trained import load_checkpoint
from difftool.runtime.backends.reference import Reference

OPTIONS = Namespace(rounds=2, seconds=0.01, profile=False)
SMALL = {"channels": 8, "groups": 4, "multipliers": [1, 2], "attention": [1], "blocks": 1}


@pytest.fixture(scope="module")
def prepared(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Prepared:
    loaded = load_checkpoint(tiny_checkpoint)
    naive = tmp_path_factory.mktemp("naive") / "network.onnx"
    export_network(loaded.network, loaded.spec, naive)
    return Prepared(loaded, read_bundle(tiny_bundle), naive)


def test_a_network_of_diffusers_with_our_weights_is_our_network(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    source = load_checkpoint(
        write_untrained(tmp_path / "checkpoint", "ddpm-cifar10", (3, 16, 16), SMALL)
    )
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    timestep = torch.tensor([3.0, 700.0])
    with torch.inference_mode():
        ours = source.network(x, source.network.condition(timestep))
        theirs = unet(source)(x, timestep).sample
    assert ours.std() > 0.01
    assert (ours - theirs).abs().max() < 1e-5


def test_diffusers_has_no_pipeline_for_points(points_checkpoint: Path) -> None:
    pytest.importorskip("diffusers")
    with pytest.raises(NotTheirs):
        pipeline(load_checkpoint(points_checkpoint))


@pytest.mark.parametrize(
    ("name", "package"),
    [
        (OURS, "onnxruntime"),
        (EAGER, "torch"),
        (PIPELINE, "diffusers"),
        ("onnxruntime, plain", "onnxruntime"),
        ("openvino f32, plain", "openvino"),
    ],
)
@pytest.mark.parametrize("size", [1, 3])
def test_a_side_takes_the_step_that_pytorch_takes(
    name: str, package: str, size: int, prepared: Prepared
) -> None:
    pytest.importorskip(package)
    side = SIDES[name](Setting(prepared, size, threads=1))
    assert step_error(side, prepared, size) < 1e-5
    side.steps(2)


def test_few_rows_are_spread_over_the_program(prepared: Prepared) -> None:
    program, whole = few_rows(prepared.bundle), prepared.bundle.default_program()
    np.testing.assert_array_equal(program.table[[0, -1]], whole.table[[0, -1]])
    np.testing.assert_array_equal(program.targets[[0, -1]], whole.targets[[0, -1]])
    assert len(program) < len(whole)


def test_a_side_that_computes_something_else_is_invalid(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = SIDES["onnxruntime, plain"]

    def wrong(setting: Setting) -> Side:
        right = exact(setting)

        def network(x: np.ndarray, cond: np.ndarray) -> np.ndarray:
            return 1.01 * right.backend._network(x, cond)

        return Side(right.steps, Reference(network, setting.prepared.spec.shape))

    def missing(setting: Setting) -> Side:
        raise Unavailable("not installed")

    monkeypatch.setitem(SIDES, "onnxruntime, plain", wrong)
    monkeypatch.setitem(SIDES, "torch.compile", missing)
    names = [OURS, "onnxruntime, plain", "torch.compile"]
    figures = at_batch("tiny", Setting(prepared, 1, threads=1), names, OPTIONS)
    found = {figure.name: figure for figure in figures}
    assert len(found["batch 1: difftool fp32"].values) == OPTIONS.rounds
    assert found["batch 1: onnxruntime, plain"].absent.startswith("INVALID: ")
    assert found["batch 1: torch.compile"].absent == "not installed"
    for name in names[1:]:
        assert not found[f"batch 1: {name}"].values
    assert f"batch 1: {OURS} / {FASTEST}" not in found


def test_our_own_error_fails_the_benchmark(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_peers, "FP32_TOLERANCE", 0.0)
    monkeypatch.setattr(against_peers, "step_error", lambda *_: 1e-9)
    sides, (error, absent) = against_peers.open_sides("x", Setting(prepared, 1), [OURS])
    assert not sides
    assert error.verdict == "FAIL"
    assert absent.absent.startswith("INVALID")


def test_ratios_are_taken_with_the_fastest_peer_and_have_their_limits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(against_peers, "instructions", lambda: ["VNNI", "BF16"])
    ms = {
        OURS: [10.0, 10.0, 20.0],
        EAGER: [15.0, 15.0, 30.0],
        "torch.compile": [9.9, 9.9, 19.8],
        PIPELINE: [13.0, 13.0, 26.0],
        "difftool int8": [4.0, 4.0, 8.0],
        "difftool int8, openvino": [3.0, 3.0, 6.0],
    }
    found = {figure.name: figure for figure in comparisons("cifar10", 1, ms)}
    fastest = found[f"batch 1: {OURS} / {FASTEST}"]
    assert fastest.median == pytest.approx(10 / 9.9)
    assert (fastest.at_most, fastest.verdict) == (1.03, "pass")
    assert found[f"batch 1: {PIPELINE} / {OURS}"].verdict == "FAIL"  # 1.3 of at least 1.35
    assert found[f"batch 1: {EAGER} / fastest difftool int8"].median == pytest.approx(5)
    assert found[f"batch 1: {EAGER} / difftool bf16"].absent == "not measured"
    assert all(figure.limit == "" for figure in comparisons("ncsn-mnist", 1, ms))


def test_int8_is_not_judged_on_a_cpu_that_has_no_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(against_peers, "instructions", lambda: ["AVX2"])
    ms = {OURS: [10.0], EAGER: [10.0], "difftool int8": [9.0]}
    found = {figure.name: figure for figure in comparisons("cifar10", 1, ms)}
    int8 = found[f"batch 1: {EAGER} / fastest difftool int8"]
    assert (int8.limit, int8.verdict) == ("at least 4", "")
    assert int8.unjudged == "not judged: this CPU has no VNNI"
    assert "no BF16" in found[f"batch 1: {EAGER} / difftool bf16"].absent


def test_a_bundle_s_own_bound_of_int8_counts(prepared: Prepared) -> None:
    assert tolerance("difftool fp32", prepared) == 1e-4
    assert tolerance("difftool int8", prepared) == 1e-1  # it has none
    assert tolerance("openvino bf16, plain", prepared) == 3e-2


def test_compilation_that_takes_too_long_is_given_up(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> Side:
        def steps(count: int) -> None:
            raise TimeoutError  # as the deadline does when the time is over

        return Side(steps, None)

    monkeypatch.setattr(_peers, "_rows", never)
    monkeypatch.setattr(_peers, "Eager", lambda *_, **__: None)
    with pytest.raises(Unavailable, match="not compiled within 600 s"):
        SIDES["torch.compile"](Setting(prepared, 1, compile_seconds=600))
