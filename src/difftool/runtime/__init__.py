"""The runtime: samples from a bundle, without PyTorch."""

from difftool.lazy import TYPE_CHECKING, lazily

if TYPE_CHECKING:
    from difftool.runtime import edits
    from difftool.runtime.backends.host import Arrays, HostBatch
    from difftool.runtime.backends.prepare import Preparation
    from difftool.runtime.backends.reference import Reference
    from difftool.runtime.backends.table import (
        BACKENDS,
        Asked,
        BackendEntry,
        backend_names,
        find_backend,
    )
    from difftool.runtime.bench import Timing, best_size, measure, peak_memory, ratios
    from difftool.runtime.comparison import Verification, compare
    from difftool.runtime.cuda.cuda_device import too_old_driver
    from difftool.runtime.draws import Draws, start_noise
    from difftool.runtime.edits import Edit
    from difftool.runtime.engine_cache import EngineCache, Record, key_digest
    from difftool.runtime.engines import differences
    from difftool.runtime.images import grid, grid_size, is_image, to_uint8
    from difftool.runtime.loop import run
    from difftool.runtime.model import MAX_WORK, Model, load
    from difftool.runtime.opening import open_backend, split_name
    from difftool.runtime.protocols import Backend, Batch, OnDevice, on_device
    from difftool.runtime.request import Request
    from difftool.runtime.scheduling.runner import Runner
    from difftool.runtime.scheduling.settings import Counts, Load, SchedulerSettings
    from difftool.runtime.scheduling.ticket import Preview, Previews, Ticket
    from difftool.runtime.shipped import find_bundle, open_bundle, require_own, shipped_models
    from difftool.runtime.state import State

__all__ = [
    "BACKENDS",
    "MAX_WORK",
    "Arrays",
    "Asked",
    "Backend",
    "BackendEntry",
    "Batch",
    "Counts",
    "Draws",
    "Edit",
    "EngineCache",
    "HostBatch",
    "Load",
    "Model",
    "OnDevice",
    "Preparation",
    "Preview",
    "Previews",
    "Record",
    "Reference",
    "Request",
    "Runner",
    "SchedulerSettings",
    "State",
    "Ticket",
    "Timing",
    "Verification",
    "backend_names",
    "best_size",
    "compare",
    "differences",
    "edits",
    "find_backend",
    "find_bundle",
    "grid",
    "grid_size",
    "is_image",
    "key_digest",
    "load",
    "measure",
    "on_device",
    "open_backend",
    "open_bundle",
    "peak_memory",
    "ratios",
    "require_own",
    "run",
    "shipped_models",
    "split_name",
    "start_noise",
    "to_uint8",
    "too_old_driver",
]

_HOMES = {
    "Arrays": "difftool.runtime.backends.host",
    "Preparation": "difftool.runtime.backends.prepare",
    "HostBatch": "difftool.runtime.backends.host",
    "Asked": "difftool.runtime.backends.table",
    "BACKENDS": "difftool.runtime.backends.table",
    "Backend": "difftool.runtime.protocols",
    "BackendEntry": "difftool.runtime.backends.table",
    "Batch": "difftool.runtime.protocols",
    "Draws": "difftool.runtime.draws",
    "Edit": "difftool.runtime.edits",
    "EngineCache": "difftool.runtime.engine_cache",
    "MAX_WORK": "difftool.runtime.model",
    "Model": "difftool.runtime.model",
    "OnDevice": "difftool.runtime.protocols",
    "on_device": "difftool.runtime.protocols",
    "Record": "difftool.runtime.engine_cache",
    "Reference": "difftool.runtime.backends.reference",
    "Request": "difftool.runtime.request",
    "Counts": "difftool.runtime.scheduling.settings",
    "Load": "difftool.runtime.scheduling.settings",
    "Preview": "difftool.runtime.scheduling.ticket",
    "Previews": "difftool.runtime.scheduling.ticket",
    "Runner": "difftool.runtime.scheduling.runner",
    "SchedulerSettings": "difftool.runtime.scheduling.settings",
    "State": "difftool.runtime.state",
    "Ticket": "difftool.runtime.scheduling.ticket",
    "Verification": "difftool.runtime.comparison",
    "backend_names": "difftool.runtime.backends.table",
    "Timing": "difftool.runtime.bench",
    "best_size": "difftool.runtime.bench",
    "measure": "difftool.runtime.bench",
    "peak_memory": "difftool.runtime.bench",
    "ratios": "difftool.runtime.bench",
    "compare": "difftool.runtime.comparison",
    "differences": "difftool.runtime.engines",
    "edits": "difftool.runtime.edits",
    "find_backend": "difftool.runtime.backends.table",
    "find_bundle": "difftool.runtime.shipped",
    "grid": "difftool.runtime.images",
    "grid_size": "difftool.runtime.images",
    "is_image": "difftool.runtime.images",
    "key_digest": "difftool.runtime.engine_cache",
    "load": "difftool.runtime.model",
    "open_backend": "difftool.runtime.opening",
    "open_bundle": "difftool.runtime.shipped",
    "run": "difftool.runtime.loop",
    "require_own": "difftool.runtime.shipped",
    "shipped_models": "difftool.runtime.shipped",
    "split_name": "difftool.runtime.opening",
    "start_noise": "difftool.runtime.draws",
    "to_uint8": "difftool.runtime.images",
    "too_old_driver": "difftool.runtime.cuda.cuda_device",
}

__getattr__ = lazily(__name__, _HOMES)
