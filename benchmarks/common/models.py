"""The models that are measured: checkpoint, bundle and plain graph, made once in a folder.

The networks for CIFAR-10 have random weights: a step takes as long, whatever they are.
"""

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common import inside_torch
from common.machine import ROOT, version
from difftool import Bundle, ModelSpec, Program
from difftool.bundle import read_bundle
from difftool.checkpoint import EMA, save_checkpoint
from difftool.diffusion import NetworkCall, SamplerCall, compile_program
from difftool.export import export
from difftool.train import Checkpoint, load_checkpoint, preset

# What a bundle depends on beside its checkpoint: when these change, it is made again.
SOURCES = ("bundle/*.py", "export/**/*.py", "networks/*.py", "train/presets/*.toml")
_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")
AS_EXPORTED = inside_torch.Lowerings(translations={}, rewrites=())  # by PyTorch on its own
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
class Setting:
    """A model on disk, and the batch of it that a candidate is opened for.

    `checkpoint` is loaded, `bundle` what it was exported to, and `device` torch's.
    """

    case: Case
    checkpoint: Checkpoint
    bundle: Bundle
    folder: Path
    size: int = 1
    threads: int | None = None
    device: str = "cpu"
    compile_seconds: float = 900.0

    @property
    def spec(self) -> ModelSpec:
        """Give the model's spec."""
        return self.bundle.spec

    @property
    def program(self) -> Program:
        """Give the program that is run: the bundle's default."""
        return self.bundle.default_program()

    def plain_graph(self) -> Path:
        """Export network(x, timestep) as ONNX, once, with a dynamic batch as the step graph has."""
        path = self.folder / "network.onnx"
        if not path.is_file():
            inputs = {"x": torch.zeros(2, *self.spec.shape), "timestep": torch.zeros(2)}
            export_plain(Bare(self.checkpoint.network), inputs, ("F",), path)
        return path


def untrained(name: str, shape: tuple[int, ...], folder: Path, **changes: Any) -> Path:
    """Write a preset's model with random weights, the same on every call, once.

    `changes` are other arguments of its network.
    """
    folder = folder / "checkpoint"
    if folder.is_dir():
        return folder
    config = preset(name)
    spec = inside_torch.model_spec(config, shape)
    derived = inside_torch.network_call(config, spec)
    call = NetworkCall(derived.kind, {**derived.arguments, **changes})
    torch.manual_seed(0)
    weights = inside_torch.build_network(call).state_dict()
    save_checkpoint(
        folder,
        step=0,
        spec=spec,
        network=call,
        sampler=config.sampler.call,
        training=None,
        tensors={EMA: {key: _not_zero(key, value) for key, value in weights.items()}},
    )
    return folder


CASES = {
    case.name: case
    for case in (
        Case("cifar10", partial(untrained, "ddpm-cifar10", (3, 32, 32), dropout=0.0), (1, 4, 16)),
        Case("ddpm-mnist", lambda _: ROOT / "checkpoints/ddpm-mnist", (1, 16, 64), trained=True),
        Case("ncsn-mnist", lambda _: ROOT / "checkpoints/ncsn-mnist", (1, 16, 64), trained=True),
        Case("ncsnv2-cifar10", partial(untrained, "ncsnv2-cifar10", (3, 32, 32)), (1, 4)),
    )
}
TINY = Case("tiny", partial(untrained, "ddpm-mnist-small", (1, 8, 8), **_TINY))  # for dry runs


def prepare(case: Case, work: Path, *, torchscript: bool = False) -> Setting:
    """Make the files of a case in `work`, if they are not there yet."""
    folder = work / f"{case.name}-{digest()}{'-torchscript' * torchscript}"
    path, bundle = case.checkpoint(folder), folder / "bundle"
    if not bundle.is_dir():
        export(path, bundle, torchscript=torchscript)
    return Setting(case, load_checkpoint(path), read_bundle(bundle), folder)


class Bare(nn.Module):
    """A network as anyone would export it: network(x, timestep)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return self.network(x, self.network.condition(timestep))


def export_plain(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], path: Path
) -> None:
    """Write a module as ONNX as anyone would, with a dynamic batch, in the step graph's opset."""
    axes, examples = dict.fromkeys(inputs, (torch.export.Dim("batch"),)), tuple(inputs.values())
    inside_torch.export_module(module.eval(), examples, axes, outputs, path, AS_EXPORTED)


def short_program(bundle: Bundle, steps: int) -> Program:
    """Make the default program in `steps` steps."""
    asked = SamplerCall(arguments={"steps": steps})
    return compile_program(bundle.spec, bundle.manifest.program.call.changed_by(asked))


def digest() -> str:
    """Hash all that decides what `prepare` makes."""
    digest = hashlib.sha256(repr([version(name) for name in _PACKAGES]).encode())
    found = (sorted((ROOT / "src/difftool").glob(pattern)) for pattern in SOURCES)
    for file in (Path(__file__), *itertools.chain.from_iterable(found)):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _not_zero(key: str, value: Tensor) -> Tensor:
    """Draw weights that begin as zeros, such as the last of a branch, at random."""
    if value.ndim < 2 or value.any() or not key.endswith("weight"):
        return value
    return nn.init.xavier_uniform_(value.clone(), gain=_BRANCH_GAIN)
