"""All that benchmarks use of difftool beside its public names, and that needs PyTorch or onnx."""

# ruff: noqa: F401
from difftool.bundle.amend import with_files
from difftool.checkpoint import EMA, MODEL, save_checkpoint
from difftool.compile import engine_request
from difftool.compile.engine.compile import compile_bundle
from difftool.compile.precision import in_half
from difftool.export import export
from difftool.export.onnx import OPSET, conditioner_width, export_step
from difftool.export.step import StepModule
from difftool.importers.diffusers_unet import namer
from difftool.networks import build_network
from difftool.networks.trained import Checkpoint, load_checkpoint
from difftool.networks.unet import UNet
from difftool.runtime.backends.torchscript import Step, TorchBatch
from difftool.runtime.comparison import compare
from difftool.train import likelihood, variational
from difftool.train.config import model_spec, network_call
from difftool.train.presets import preset
from difftool.verify.compiled import jit_compiled
from difftool.verify.eager import Eager
from difftool.verify.sides import Side, widest_bounds
