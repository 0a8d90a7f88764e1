"""The backends that run here, opened on one bundle, and how far two arrays are apart."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from difftool.bundle import STEP, TORCHSCRIPT, Bundle, read_bundle
from difftool.bundle.amend import with_files
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.export.step import StepModule
from difftool.export.torchscript import torchscript
from difftool.networks.trained import load_checkpoint
from difftool.runtime.cuda.backend import DeviceBackend
from difftool.runtime.draws import Draws
from difftool.runtime.loop import run
from difftool.runtime.opening import open_backend
from difftool.runtime.protocols import Backend
from difftool.runtime.shipped import find_bundle
from difftool.verify.numpy_graph import NumpyGraph
from tests.runtime.cuda.fake import FakeDevice, FakeEngine

Floats = NDArray[np.float32]
MakeDraws = Callable[[int, NDArray[np.int64], tuple[int, ...]], Draws]

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("numpy", "onnxruntime-cpu", "openvino", "torchscript")
DEVICE = "a fake GPU"  # the driver of GPUs with the kernels' host build, on ONNX Runtime's CPU


def opened(bundle: Bundle, name: str, threads: int = 1) -> Backend:
    """Open one of NAMES, or DEVICE, on a bundle, which for torchscript has a step.ts."""
    if name == "numpy":
        return NumpyGraph(bundle, "fp32")
    if name == DEVICE:
        device = FakeDevice()
        return DeviceBackend(DEVICE, bundle, device, FakeEngine(device, bundle.file(STEP)))
    code = bundle.manifest.files.get(TORCHSCRIPT)
    trusted = [code.sha256] if code else []
    return open_backend(bundle, name, threads=threads, trusted=trusted)


def with_torchscript(bundle: Path, checkpoint: Path) -> Bundle:
    """Give a bundle a step.ts of the checkpoint that it came from."""
    loaded, opened = load_checkpoint(checkpoint), read_bundle(bundle)
    module = StepModule(loaded.network, loaded.spec, opened.features)
    return with_files(opened, {TORCHSCRIPT: torchscript(module)})


def shipped_with_torchscript(name: str, folder: Path) -> Bundle:
    """Return a copy in `folder` of a shipped model, with a step.ts."""
    copy = shutil.copytree(find_bundle(name), folder / name)
    return with_torchscript(copy, ROOT / "checkpoints" / name)


def final(
    backend: Backend,
    spec: ModelSpec,
    program: Program,
    seed: int,
    samples: list[int],
    draws: MakeDraws = Draws,
) -> Floats:
    """Return these samples of a seed, drawn as one batch in these slots; float32 [N, *S]."""
    indices = np.array(samples)
    labels = Labels(indices % spec.classes) if spec.classes else None
    batch = backend.batch(program, len(samples), labels)
    for _ in run(batch, program, draws(seed, indices, spec.shape), every=len(program)):
        pass
    return batch.x.copy()


def ulps(x: Floats, reference: Floats) -> float:
    """Return the largest difference, in units in the last place of the largest reference."""
    if np.array_equal(x, reference):
        return 0.0
    unit = np.spacing(np.abs(reference).max())
    return float(np.abs(x.astype(np.float64) - reference).max() / unit)
