"""What is measured, each prepared once in a folder: checkpoint, bundle, plain graph.

The networks for CIFAR-10 have random weights: a step takes as long, whatever they are.
"""

import hashlib
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common import inside_torch
from common.inside import Bundle, NetworkCall, SamplerCall, compile_program, read_bundle
from common.machine import ROOT, version
from difftool import ModelSpec, Program

# What a bundle depends on beside its checkpoint: when these change, it is made again.
_SOURCES = ("bundle.py", "export", "networks", "train/presets")
_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")
_BRANCH_GAIN = 0.3  # of layers that begin as zeros, so that they count and nothing overflows
_TINY = {"channels": 8, "groups": 4, "multipliers": [1], "attention": [], "blocks": 1}


@dataclass(frozen=True)
class Case:
    """A model to measure.

    - `checkpoint`: writes it to a folder if it is not shipped, and says where it is
    - `batches`: that it is measured at on a CPU
    - `trained`: a whole run in 16 bits proves little if the weights are random
    """

    name: str
    checkpoint: Callable[[Path], Path]
    batches: tuple[int, ...] = ()
    trained: bool = False


@dataclass(frozen=True)
class Prepared:
    """A case on disk."""

    case: Case
    checkpoint: inside_torch.Checkpoint
    bundle: Bundle
    folder: Path

    @property
    def spec(self) -> ModelSpec:
        """The model's."""
        return self.bundle.spec

    def plain_graph(self) -> Path:
        """Export network(x, timestep) as ONNX, once, with a dynamic batch as the step graph has."""
        path = self.folder / "network.onnx"
        if not path.is_file():
            inputs = {"x": torch.zeros(2, *self.spec.shape), "timestep": torch.zeros(2)}
            exported = onnx_of(Bare(self.checkpoint.network), inputs)
            exported.save(str(path), external_data=False)
        return path


@dataclass(frozen=True)
class Setting:
    """What a candidate is opened for: a model on disk, and a batch. `device` is torch's."""

    prepared: Prepared
    size: int
    threads: int | None = None
    device: str = "cpu"
    compile_seconds: float = 900.0

    @property
    def spec(self) -> ModelSpec:
        """The model's."""
        return self.prepared.spec

    @property
    def bundle(self) -> Bundle:
        """The model's, as it was exported."""
        return self.prepared.bundle

    @property
    def program(self) -> Program:
        """The program that is run: the bundle's default."""
        return self.bundle.default_program()


def shipped(name: str) -> Callable[[Path], Path]:
    """Make what finds a model that comes with difftool."""
    return lambda folder: ROOT / "checkpoints" / name


def untrained(name: str, shape: tuple[int, ...], **changes: Any) -> Callable[[Path], Path]:
    """Make what writes a preset's model with random weights, the same on every call.

    `changes` are other arguments of its network.
    """

    def write(folder: Path) -> Path:
        folder = folder / "checkpoint"
        if folder.is_dir():
            return folder
        config = inside_torch.preset(name)
        spec = inside_torch.model_spec(config, shape)
        derived = inside_torch.network_call(config, spec)
        call = NetworkCall(derived.kind, {**derived.arguments, **changes})
        torch.manual_seed(0)
        network = inside_torch.build_network(call)
        weights = {key: _not_zero(key, value) for key, value in network.state_dict().items()}
        inside_torch.save_checkpoint(
            folder,
            step=0,
            spec=spec,
            network=call,
            sampler=config.sampler.call,
            training=None,
            tensors={inside_torch.EMA: weights, inside_torch.MODEL: weights},
        )
        return folder

    return write


CASES = {
    case.name: case
    for case in (
        Case("cifar10", untrained("ddpm-cifar10", (3, 32, 32), dropout=0.0), (1, 4, 16)),
        Case("ddpm-mnist", shipped("ddpm-mnist"), (1, 16, 64), trained=True),
        Case("ncsn-mnist", shipped("ncsn-mnist"), (1, 16, 64), trained=True),
        Case("ncsnv2-cifar10", untrained("ncsnv2-cifar10", (3, 32, 32)), (1, 4)),
    )
}
TINY = Case("tiny", untrained("ddpm-mnist-small", (1, 8, 8), **_TINY))  # for dry runs


def prepare(case: Case, work: Path, *, torchscript: bool = False) -> Prepared:
    """Make the files of a case in `work`, if they are not there yet."""
    folder = work / f"{case.name}-{digest()}{'-torchscript' * torchscript}"
    path, bundle = case.checkpoint(folder), folder / "bundle"
    if not bundle.is_dir():
        inside_torch.export(path, bundle, torchscript=torchscript)
    return Prepared(case, inside_torch.load_checkpoint(path), read_bundle(bundle), folder)


class Bare(nn.Module):
    """A network as anyone would export it: network(x, timestep)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return self.network(x, self.network.condition(timestep))


def onnx_of(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str] | None = None) -> Any:
    """Export a module as ONNX with a dynamic batch, in the step graph's opset, in silence."""
    batch = torch.export.Dim("batch")
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's, of its own affairs
            return torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                dynamic_shapes=tuple({0: batch} for _ in inputs),
                input_names=list(inputs),
                output_names=outputs,
                dynamo=True,
                opset_version=inside_torch.OPSET,  # so that the same kernels run
                verbose=False,
            )
    finally:
        logger.setLevel(level)


def short_program(bundle: Bundle, steps: int) -> Program:
    """Make the default program in `steps` steps."""
    default = bundle.manifest.program.call
    asked = SamplerCall(default.name, {**default.arguments, "steps": steps})
    return compile_program(bundle.spec, asked)


def digest() -> str:
    """Hash all that decides what `prepare` makes."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        top = ROOT / "src/difftool" / name
        files = [top] if top.is_file() else sorted(top.rglob("*"))
        if not files:
            raise FileNotFoundError(f"{top} is not there: name what took its place")
        for file in files:
            if file.suffix in (".py", ".toml"):
                digest.update(file.read_bytes())
    digest.update(Path(__file__).read_bytes())
    digest.update(repr([version(name) for name in _PACKAGES]).encode())
    return digest.hexdigest()[:12]


def _not_zero(key: str, value: Tensor) -> Tensor:
    """Weights that begin as zeros, as the last of a branch do, drawn at random."""
    if value.ndim < 2 or value.any() or not key.endswith("weight"):
        return value
    return nn.init.xavier_uniform_(value.clone(), gain=_BRANCH_GAIN)
