"""What the peers are compared on, each prepared once in a folder: checkpoint, bundle, plain graph.

The networks for CIFAR-10 have random weights: a step takes as long, whatever they are.
"""

import hashlib
import importlib.metadata
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from _report import ROOT
from torch import Tensor, nn

from difftool import checkpoint as ckpt
from difftool.bundle import Bundle, read_bundle
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import compile_program
from difftool.diffusion.spec import ModelSpec
from difftool.export.bundle import export_bundle
from difftool.export.onnx import OPSET
from difftool.networks import build_network
from difftool.networks.trained import Checkpoint, load_checkpoint
from difftool.train.config import model_spec, network_arguments
from difftool.train.presets import preset

# What a bundle depends on beside its checkpoint: where these change, it is made again.
_SOURCES = ("bundle.py", "export", "networks", "train/presets")
_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")
_FEW = 8  # rows of the program that outputs are compared over
_BRANCH_GAIN = 0.3  # of layers that begin as zeros, so that they count and nothing overflows


@dataclass(frozen=True)
class Case:
    """A model to measure, at these batches; `checkpoint` writes it where it is not shipped."""

    name: str
    batches: tuple[int, ...]
    checkpoint: Callable[[Path], Path]


@dataclass(frozen=True)
class Prepared:
    """A case on disk: the checkpoint, its bundle, and the plain graph network(x, timestep)."""

    checkpoint: Checkpoint
    bundle: Bundle
    naive: Path

    @property
    def spec(self) -> ModelSpec:
        """The model's."""
        return self.bundle.spec


def shipped(name: str) -> Callable[[Path], Path]:
    """A model that comes with difftool."""
    return lambda work: ROOT / "checkpoints" / name


def untrained(name: str, shape: tuple[int, ...], **changes: Any) -> Callable[[Path], Path]:
    """A preset's model with random weights; `changes` are other arguments of its network."""
    return lambda work: write_untrained(work / "checkpoint", name, shape, changes)


CASES = {
    case.name: case
    for case in (
        Case("cifar10", (1, 4, 16), untrained("ddpm-cifar10", (3, 32, 32), dropout=0.0)),
        Case("ddpm-mnist", (1, 16, 64), shipped("ddpm-mnist")),
        Case("ncsn-mnist", (1, 16, 64), shipped("ncsn-mnist")),
        Case("ncsnv2-cifar10", (1, 4), untrained("ncsnv2-cifar10", (3, 32, 32))),
    )
}


def prepare(case: Case, work: Path) -> Prepared:
    """The files of a case, made where they are not in `work` yet."""
    folder = work / f"{case.name}-{digest()}"
    path = case.checkpoint(folder)
    if not (folder / "bundle").is_dir():
        export_bundle(path, folder / "bundle")
    loaded = load_checkpoint(path)
    naive = folder / "network.onnx"
    if not naive.is_file():
        export_network(loaded.network, loaded.spec, naive)
    return Prepared(loaded, read_bundle(folder / "bundle"), naive)


def write_untrained(
    folder: Path, name: str, shape: tuple[int, ...], changes: dict[str, Any]
) -> Path:
    """A checkpoint of a preset's model with random weights, the same on every call."""
    if folder.is_dir():
        return folder
    config = preset(name)
    spec = model_spec(config, shape)
    arguments = network_arguments(config, spec) | changes
    torch.manual_seed(0)
    network = build_network(config.network.kind, arguments)
    weights = {key: _not_zero(key, value) for key, value in network.state_dict().items()}
    ckpt.save_checkpoint(
        folder,
        step=0,
        spec=spec,
        network={"kind": config.network.kind, "arguments": arguments},
        sampler=config.sampler.call,
        training=None,
        tensors={ckpt.EMA: weights, ckpt.MODEL: weights},
    )
    return folder


def _not_zero(key: str, value: Tensor) -> Tensor:
    """Weights that begin as zeros, as the last of a branch do, drawn at random."""
    if value.ndim < 2 or value.any() or not key.endswith("weight"):
        return value
    return nn.init.xavier_uniform_(value.clone(), gain=_BRANCH_GAIN)


class Bare(nn.Module):
    """A network as anyone would export it: network(x, timestep)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return self.network(x, self.network.condition(timestep))


def export_network(network: nn.Module, spec: ModelSpec, path: Path) -> None:
    """The network alone as ONNX, with a dynamic batch as the step graph has it."""
    batch = torch.export.Dim("batch")
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's, of its own affairs
            exported = torch.onnx.export(
                Bare(network).eval(),
                (torch.zeros(2, *spec.shape), torch.zeros(2)),
                dynamic_shapes=({0: batch}, {0: batch}),
                input_names=["x", "timestep"],
                dynamo=True,
                opset_version=OPSET,  # the step graph's, so that the same kernels run
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    exported.save(str(path), external_data=False)


def few_rows(bundle: Bundle) -> Program:
    """Rows spread over the default program's noise levels, to compare outputs on.

    Not a program that samples: each row is taken from a state of its own.
    """
    program = bundle.default_program()
    rows = torch.linspace(0, len(program) - 1, min(_FEW, len(program))).long().numpy()
    targets = [*rows, rows[-1] + 1]
    return replace(
        program,
        table=program.table[rows],
        draws=program.draws[rows],
        targets=program.targets[targets],
    )


def short_program(bundle: Bundle, steps: int) -> Program:
    """The default program in `steps` steps."""
    entry = bundle.manifest.program.call
    return compile_program(bundle.spec, entry.changed_by(SamplerCall(arguments={"steps": steps})))


def digest() -> str:
    """Of all that decides what `prepare` makes."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        top = ROOT / "src/difftool" / name
        files = [top] if top.is_file() else sorted(top.rglob("*"))
        for file in files:
            if file.suffix in (".py", ".toml"):
                digest.update(file.read_bytes())
    digest.update(Path(__file__).read_bytes())
    digest.update(repr([importlib.metadata.version(name) for name in _PACKAGES]).encode())
    return digest.hexdigest()[:12]
