"""All that benchmarks use of difftool's inside, and that needs PyTorch or onnx."""

# ruff: noqa: F401
from difftool.bundle.amend import with_files
from difftool.compile.engine.build import build_engine
from difftool.compile.lowerings import GPU, lowered
from difftool.compile.lowerings.parity import parity_kernels
from difftool.compile.precision import in_half
from difftool.export.lowerings import CHOSEN, Lowerings
from difftool.export.onnx import conditioner_width, export_module, export_step
from difftool.export.step import StepModule
from difftool.importers.diffusers_unet import namer
from difftool.networks import build_network
from difftool.networks.unet import UNet
from difftool.runtime.backends.torchscript import Step, TorchBatch
from difftool.runtime.variants import open_variant
from difftool.train import likelihood, variational
from difftool.train.config import model_spec, network_call
from difftool.verify.compiled import jit_compiled
from difftool.verify.sides import widest_bounds
