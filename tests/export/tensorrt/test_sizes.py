"""Engines of whole models: the shipped DDPM, and networks of the size of CIFAR-10's."""

import json
from pathlib import Path

import onnx
import pytest

from difftool.bundle import STEP, EngineKey
from difftool.cli import main
from difftool.diffusion.schedules import geometric, linear
from difftool.diffusion.spec import ModelSpec
from difftool.export.onnx import conditioner_width, export_step, step_module
from difftool.export.precision import in_half
from difftool.export.tensorrt.build import build_engine
from difftool.export.tensorrt.target import resolve_target
from difftool.train.networks import build_network

pytest.importorskip("tensorrt_rtx")

CHECKPOINT = Path(__file__).resolve().parents[3] / "checkpoints" / "ddpm-mnist"
GPUS = "sm89,sm120"
MAGIC = b"vtrt"

UNET = ModelSpec(
    shape=(3, 32, 32),
    schedule=linear(steps=1000, beta_end=0.02),
    parameterization="epsilon",
    cond="timestep",
    data_range=(-1.0, 1.0),
)
NCSN = ModelSpec(
    shape=(3, 32, 32),
    schedule=geometric(levels=10, sigma_min=0.01, sigma_max=1.0),
    parameterization="score",
    cond="level",
    data_range=(0.0, 1.0),
)


@pytest.mark.timeout(300)
def test_the_shipped_ddpm_in_three_precisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIFFTOOL_CACHE", str(tmp_path / "cache"))
    bundle = str(tmp_path / "ddpm")
    target = ["--trt", "--gpu", GPUS, "--json"]
    # The short program is only to calibrate int8 with in little time.
    line = ["export", str(CHECKPOINT), "--out", bundle, "--sampler", "ddim", "--steps", "10"]
    assert main([*line, "--precision", "fp16", *target]) == 0
    exported = json.loads(capsys.readouterr().out)
    assert list(exported["engines"]) == ["step.fp16.sm89-sm120.engine"]
    engines = [Path(bundle, "step.fp16.sm89-sm120.engine")]
    for precision in ("fp32", "int8"):
        assert main(["compile", bundle, "--precision", precision, *target]) == 0
        engines.append(Path(json.loads(capsys.readouterr().out)["engine"]))
    for engine in engines:
        assert engine.read_bytes().startswith(MAGIC)
    assert len({engine.stat().st_size for engine in engines}) == 3


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "arguments", "spec", "parameters"),
    [
        ("unet", {"in_channels": 3, "out_channels": 3}, UNET, 35.7e6),
        ("ncsn", {"in_channels": 3, "levels": 10}, NCSN, 29.7e6),
    ],
)
def test_a_network_of_cifar_size_in_fp16(
    kind: str, arguments: dict[str, int], spec: ModelSpec, parameters: float, tmp_path: Path
) -> None:
    network = build_network(kind, arguments)
    count = sum(weight.numel() for weight in network.parameters())
    assert count == pytest.approx(parameters, rel=0.02)
    export_step(step_module(network, spec), spec, conditioner_width(network, spec), tmp_path / STEP)
    target = resolve_target(GPUS)
    key = EngineKey(
        onnx_sha256="0" * 64,
        recipe=1,
        flavour=target.flavour.name,
        version=target.flavour.version,
        gpus=target.gpus,
        precision="fp16",
        profile=(1, 8, 64),
    )
    engine, _ = build_engine(in_half(onnx.load(tmp_path / STEP), "fp16"), key, target.flavour)
    assert engine.startswith(MAGIC)
    assert len(engine) > parameters  # two bytes each, but for the conditioner's
