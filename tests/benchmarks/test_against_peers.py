"""The candidates of a comparison compute the same, and one that does not has no time."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from against_peers import FASTEST, at_batch, comparisons
from common.candidates import COMPILE, EAGER, OURS, PIPELINE, PLAIN, Runner, Unavailable
from common.in_diffusers import pipeline, unet
from common.models import Setting, untrained
from common.parity import SingleSteps
from common.peers import CANDIDATES, reference, tolerance, torch_compile

from difftool.networks.trained import load_checkpoint

OPTIONS = Namespace(rounds=2, seconds=0.01, profile=False)
SMALL = {"channels": 8, "groups": 4, "multipliers": [1, 2], "attention": [1], "blocks": 1}


def test_a_network_of_diffusers_with_our_weights_is_our_network(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    source = load_checkpoint(untrained("ddpm-cifar10", (3, 16, 16), tmp_path, **SMALL))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    timestep = torch.tensor([3.0, 700.0])
    with torch.inference_mode():
        ours = source.network(x, source.network.condition(timestep))
        theirs = unet(source)(x, timestep).sample
    assert ours.std() > 0.01
    assert (ours - theirs).abs().max() < 1e-5


def test_diffusers_has_no_pipeline_for_points(points_checkpoint: Path) -> None:
    pytest.importorskip("diffusers")
    with pytest.raises(Unavailable, match="linear schedule"):
        pipeline(load_checkpoint(points_checkpoint))


@pytest.mark.parametrize(
    ("name", "package"),
    [
        (OURS, "onnxruntime"),
        (EAGER, "torch"),
        (PIPELINE, "diffusers"),
        (PLAIN[0], "onnxruntime"),
        (PLAIN[1], "openvino"),
    ],
)
@pytest.mark.parametrize("size", [1, 3])
def test_a_candidate_takes_the_step_that_pytorch_takes(
    name: str, package: str, size: int, prepared: Setting
) -> None:
    pytest.importorskip(package)
    setting = replace(prepared, size=size, threads=1)
    runner = CANDIDATES[name](setting)
    batch = reference(prepared).batch(setting.program, size)
    exact = SingleSteps(batch, setting.spec, setting.program, size)
    assert exact.error(runner.batch) < 1e-5
    runner.steps(2)


def test_a_candidate_that_computes_something_else_is_invalid(prepared: Setting) -> None:
    def wrong(setting: Setting) -> Runner:
        runner = CANDIDATES[PLAIN[0]](setting)
        step = runner.batch.step

        def off(noise: np.ndarray) -> None:
            step(noise)
            runner.batch.x = 1.01 * runner.batch.x

        runner.batch.step = off
        return runner

    def missing(setting: Setting) -> Runner:
        raise Unavailable("not installed")

    opens = {OURS: CANDIDATES[OURS], PLAIN[0]: wrong, COMPILE: missing}
    figures = at_batch(replace(prepared, threads=1), opens, OPTIONS)
    found = {figure.name: figure for figure in figures}
    assert len(found["batch 1: difftool fp32"].values) == OPTIONS.rounds
    assert found["batch 1: onnxruntime, plain"].absent.startswith("INVALID: ")
    assert found["batch 1: torch.compile"].absent == "not installed"
    for name in (PLAIN[0], COMPILE):
        assert not found[f"batch 1: {name}"].values
    assert f"batch 1: {OURS} / {FASTEST}" not in found


def test_our_own_error_fails_the_benchmark(prepared: Setting) -> None:
    def wrong(setting: Setting) -> Runner:
        runner = CANDIDATES[OURS](setting)
        batch = SimpleNamespace(start=runner.batch.start, step=runner.batch.step, x=np.zeros(1))
        return Runner(batch, runner.steps)

    error, absent = at_batch(replace(prepared, threads=1), {OURS: wrong}, OPTIONS)
    assert error.verdict == "FAIL"
    assert absent.absent.startswith("INVALID")


def test_ratios_are_taken_with_the_fastest_peer_and_have_their_limits() -> None:
    ms = {
        OURS: [10.0, 10.0, 20.0],
        EAGER: [15.0, 15.0, 30.0],
        "torch.compile": [9.9, 9.9, 19.8],
        PIPELINE: [13.0, 13.0, 26.0],
        "difftool int8": [4.0, 4.0, 8.0],
        "difftool int8, openvino": [3.0, 3.0, 6.0],
    }
    found = {figure.name: figure for figure in comparisons("cifar10", 1, ms, ["VNNI", "BF16"])}
    fastest = found[f"batch 1: {OURS} / {FASTEST}"]
    assert fastest.median == pytest.approx(10 / 9.9)
    assert (fastest.at_most, fastest.verdict) == (1.03, "pass")
    assert found[f"batch 1: {PIPELINE} / {OURS}"].verdict == "FAIL"  # 1.3 of at least 1.35
    assert found[f"batch 1: {EAGER} / fastest difftool int8"].median == pytest.approx(5)
    assert found[f"batch 1: {EAGER} / difftool bf16"].absent == "not measured"
    assert all(figure.limit == "" for figure in comparisons("ncsn-mnist", 1, ms))


def test_int8_is_not_judged_on_a_cpu_that_has_no_instructions_for_it() -> None:
    ms = {OURS: [10.0], EAGER: [10.0], "difftool int8": [9.0]}
    found = {figure.name: figure for figure in comparisons("cifar10", 1, ms, ["AVX2"])}
    int8 = found[f"batch 1: {EAGER} / fastest difftool int8"]
    assert (int8.limit, int8.verdict) == ("at least 4", "")
    assert int8.unjudged == "not judged: this CPU has no VNNI"
    assert "no BF16" in found[f"batch 1: {EAGER} / difftool bf16"].absent


def test_a_bundle_s_own_bound_of_int8_counts(prepared: Setting) -> None:
    assert tolerance("difftool fp32", prepared) == 1e-4
    assert tolerance("difftool int8", prepared) == 1e-1  # it has none
    assert tolerance("openvino bf16, plain", prepared) == 3e-2


def test_compilation_that_takes_too_long_is_given_up(prepared: Setting) -> None:
    def compiler(*_: object, **__: object) -> object:
        def never(*_: object) -> None:
            raise TimeoutError  # as the deadline does when the time is over

        return lambda module: never

    with pytest.raises(Unavailable, match="not compiled within 600 s"):
        torch_compile(replace(prepared, compile_seconds=600), compiler)
