"""What is measured on a GPU: models and batches, exported once into a folder."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
from _models import CASES, digest, untrained

from difftool.bundle import STEP, Bundle, read_bundle
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.export.amend import with_files
from difftool.export.bundle import export_bundle
from difftool.export.precision import in_half
from difftool.networks.trained import Checkpoint, load_checkpoint

HALVES = ("fp16", "bf16")


@dataclass(frozen=True)
class GpuCase:
    """A model; of one with random weights a whole run in 16 bits proves little."""

    name: str
    checkpoint: Callable[[Path], Path]
    trained: bool


@dataclass(frozen=True)
class Setting:
    """What a side is opened for: a model on disk, and a batch. `device` is torch's."""

    case: GpuCase
    checkpoint: Checkpoint
    bundle: Bundle
    size: int
    device: str
    work: Path
    compile_seconds: float = 300.0

    @property
    def spec(self) -> ModelSpec:
        """The model's."""
        return self.bundle.spec

    @property
    def program(self) -> Program:
        """The program that is run: the bundle's default."""
        return self.bundle.default_program()


_TINY = {"channels": 8, "groups": 4, "multipliers": [1], "attention": [], "blocks": 1}
GPU_CASES = {
    case.name: case
    for case in (
        GpuCase("cifar10", CASES["cifar10"].checkpoint, trained=False),
        GpuCase("ddpm-mnist", CASES["ddpm-mnist"].checkpoint, trained=True),
        GpuCase("ncsn-mnist", CASES["ncsn-mnist"].checkpoint, trained=True),
        GpuCase("tiny", untrained("ddpm-mnist-small", (1, 8, 8), **_TINY), trained=False),
    )
}


def prepare(case: GpuCase, work: Path) -> tuple[Checkpoint, Bundle]:
    """The checkpoint and the bundle of a case, made where they are not in `work` yet."""
    folder = work / f"gpu-{case.name}-{digest()}"
    path = case.checkpoint(folder)
    bundle = folder / "bundle"
    if not bundle.is_dir():
        export_bundle(path, bundle, torchscript=True)
    return load_checkpoint(path), read_bundle(bundle)


def in_precision(bundle: Bundle, precision: str, work: Path) -> Bundle:
    """A bundle whose step graph is the one that TensorRT gets, for backends that run step.onnx.

    TF32 is no matter of the graph. The twin is made once for a graph.
    """
    if precision not in HALVES:
        return bundle
    twin = work / f"{bundle.manifest.files[STEP].sha256[:12]}-{precision}"
    if not twin.is_dir():
        making = work / f"{twin.name}.{os.getpid()}"
        shutil.copytree(bundle.path, making)
        graph = in_half(onnx.load(bundle.file(STEP)), precision)
        with_files(read_bundle(making), {STEP: graph.SerializeToString()})
        making.rename(twin)
    return read_bundle(twin)
