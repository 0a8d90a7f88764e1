"""All that benchmarks use of difftool's inside and without PyTorch; all else has a door."""

# ruff: noqa: F401
from difftool.alone import ray_core
from difftool.diffusion import noise
from difftool.diffusion.columns import Column
from difftool.diffusion.labels import lay_out_rows
from difftool.evaluate.classifier import SURE
from difftool.runtime.backends.onnxruntime_cpu import takes_one_row
from difftool.runtime.backends.onnxruntime_cuda import open_onnxruntime
from difftool.runtime.backends.prepare import Prepared as PreparedRows
from difftool.runtime.backends.sessions import cpu_options
from difftool.runtime.backends.tensorrt import open_tensorrt
from difftool.runtime.cuda.backend import DeviceBackend
from difftool.runtime.cuda.cuda_device import open_device
from difftool.runtime.cuda.room import Graphs
from difftool.runtime.draws import row_noise
from difftool.runtime.engine_cache import VARIABLE as ENGINES_VARIABLE
from difftool.runtime.scheduling.scheduler import Scheduler
from difftool.runtime.scheduling.slots import Entry
from difftool.scale.work import Job, Opening, bundle_sha256, draw
from difftool.scale.workers import OnRay
