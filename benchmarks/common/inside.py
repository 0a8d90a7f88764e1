"""All that benchmarks use of difftool beside its public names and without PyTorch.

No room has a door for these yet. When one has, the line goes from here to whoever uses it. What
needs PyTorch is in `common.inside_torch`.
"""

# ruff: noqa: F401
from difftool.bundle import STEP, Bounds, Bundle, read_bundle, step_name
from difftool.cli import main as command_line
from difftool.data import read_samples
from difftool.diffusion import noise
from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.diffusion.columns import Column
from difftool.diffusion.labels import lay_out_rows
from difftool.diffusion.packed import graph_inputs
from difftool.diffusion.samplers import compile_program
from difftool.errors import DifftoolError, MissingDependencyError, UsageError, first_line
from difftool.evaluate.classifier import SURE, Classes, summarize_classes
from difftool.evaluate.comparison import ImageFigures, compare_images
from difftool.evaluate.distances import Gaussian, fit_gaussian, frechet_distance
from difftool.evaluate.extractor import Extractor, Pixels, View, open_extractor
from difftool.files import read_json, write_atomic, write_json
from difftool.runtime.backends.conditioner import Conditioner
from difftool.runtime.backends.onnxruntime_cpu import takes_one_row
from difftool.runtime.backends.onnxruntime_cuda import open_onnxruntime
from difftool.runtime.backends.prepare import Prepared as PreparedRows
from difftool.runtime.backends.reference import Reference
from difftool.runtime.backends.sessions import cpu_options
from difftool.runtime.backends.tensorrt import open_tensorrt
from difftool.runtime.cuda.backend import DeviceBackend
from difftool.runtime.cuda.cuda_device import open_device
from difftool.runtime.cuda.room import Graphs
from difftool.runtime.draws import Draws, row_noise, start_noise
from difftool.runtime.engine_cache import VARIABLE as ENGINES_VARIABLE
from difftool.runtime.loop import run
from difftool.runtime.opening import open_backend
from difftool.runtime.protocols import Backend, Batch
from difftool.runtime.shipped import find_bundle
