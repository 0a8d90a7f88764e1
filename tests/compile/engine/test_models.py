"""Engines of whole models: the shipped DDPM, and networks of the size of CIFAR-10's."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from difftool import checkpoint as ckpt
from difftool.cli import main
from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.diffusion.schedules import geometric, linear
from difftool.diffusion.spec import ModelSpec
from difftool.networks import build_network
from tests.fixtures import IMAGE_SPEC

pytest.importorskip("tensorrt_rtx")

CHECKPOINT = Path(__file__).resolve().parents[3] / "checkpoints" / "ddpm-mnist"
GPUS = "sm89,sm120"
MAGIC = b"vtrt"

# Short programs: int8 is calibrated on a run of the default one.
SHORT = ["--sampler", "ddim", "--steps", "10"]

UNET = replace(IMAGE_SPEC, shape=(3, 32, 32), schedule=linear(steps=1000, beta_end=0.02))
NCSN = ModelSpec(
    shape=(3, 32, 32),
    schedule=geometric(levels=10, sigma_min=0.01, sigma_max=1.0),
    parameterization="score",
    cond="level",
    data_range=(0.0, 1.0),
)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFTOOL_CACHE", str(tmp_path / "cache"))


def build_all(
    checkpoint: Path,
    bundle: Path,
    program: list[str],
    capsys: pytest.CaptureFixture[str],
    others: tuple[str, ...] = ("fp32", "int8"),
) -> dict[str, bytes]:
    """Make an engine of each precision: fp16 with `export`, the others with `compile`."""
    target = ["--trt", "--gpu", GPUS, "--json"]
    line = ["export", str(checkpoint), "--out", str(bundle), *program, "--precision", "fp16"]
    assert main([*line, *target]) == 0
    exported = json.loads(capsys.readouterr().out)
    assert list(exported["engines"]) == ["step.fp16.sm89-sm120.engine"]
    engines = {"fp16": (bundle / "step.fp16.sm89-sm120.engine").read_bytes()}
    for precision in others:
        assert main(["compile", str(bundle), "--precision", precision, *target]) == 0
        engines[precision] = Path(json.loads(capsys.readouterr().out)["engine"]).read_bytes()
    return engines


def test_ddpm_in_three_precisions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engines = build_all(CHECKPOINT, tmp_path / "ddpm", SHORT, capsys)
    assert all(engine.startswith(MAGIC) for engine in engines.values())
    assert len({len(engine) for engine in engines.values()}) == 3


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kind", "arguments", "spec", "parameters"),
    [
        ("unet", {"in_channels": 3, "out_channels": 3}, UNET, 35.7e6),
        ("ncsn", {"in_channels": 3, "levels": 10}, NCSN, 29.7e6),
    ],
)
def test_a_network_of_cifar_size(
    kind: str,
    arguments: dict[str, int],
    spec: ModelSpec,
    parameters: float,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    nightly: bool,
) -> None:
    """Engines of fp32 and int8 take minutes, so the nightly tier alone builds them."""
    network = build_network(NetworkCall(kind, arguments))
    count = sum(weight.numel() for weight in network.parameters())
    assert count == pytest.approx(parameters, rel=0.02)
    run = tmp_path / "run"
    ckpt.save_checkpoint(
        run / "checkpoints" / "step-000000001",
        step=1,
        spec=spec,
        network=NetworkCall(kind, arguments),
        training=None,
        sampler=SamplerCall("ddim", {"steps": 2}),
        tensors={ckpt.MODEL: network.state_dict()},
    )
    others = ("fp32", "int8") if nightly else ()
    engines = build_all(run, tmp_path / "bundle", [], capsys, others)
    assert all(engine.startswith(MAGIC) for engine in engines.values())
    # Four, two and one byte a weight, but for what the conditioner holds.
    assert len(engines["fp16"]) > parameters
    if nightly:
        assert len(engines["fp32"]) > 2 * parameters
        assert len(engines["int8"]) < len(engines["fp32"])
