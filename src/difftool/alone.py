"""Import ONNX Runtime, OpenVINO and Ray with their telemetry off.

They report to their makers by default. ONNX Runtime, from 1.29 on, writes a device id and a
database into the user's cache and sends events. OpenVINO writes an id into the user's home and
sends an event at each import. A cluster that Ray starts sends its size and use once an hour.
Nothing else in difftool imports them.
"""

import os
import sys
import threading
import warnings
from typing import Any, Final

from difftool.errors import MissingDependencyError

_OPENVINO_REPORTS: Final = "openvino_telemetry"  # OpenVINO works without this package
_importing = threading.Lock()


def onnx_runtime() -> Any:
    """Return the module onnxruntime; MissingDependencyError if it is not installed."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime reads it once, when it is loaded
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError.extra("onnxruntime", "cpu") from error
    onnxruntime.disable_telemetry_events()  # in case a host program has loaded it before
    return onnxruntime


def onnx_quantization() -> Any:
    """Return onnxruntime.quantization; MissingDependencyError if it or onnx is not installed."""
    onnx_runtime()
    try:
        from onnxruntime import quantization
    except ImportError as error:  # it needs the package onnx
        raise MissingDependencyError.extra("onnx", "compile") from error
    return quantization


def open_vino() -> Any:
    """Return the module openvino; MissingDependencyError if it is not installed."""
    with _importing:
        known = sys.modules.get(_OPENVINO_REPORTS)
        # None in sys.modules makes an import fail, as if the package were not installed.
        sys.modules[_OPENVINO_REPORTS] = None  # type: ignore[assignment]
        try:
            import openvino
        except ImportError as error:
            raise MissingDependencyError.extra("openvino", "openvino") from error
        finally:
            del sys.modules[_OPENVINO_REPORTS]
            if known is not None:
                sys.modules[_OPENVINO_REPORTS] = known
    return openvino


def ray_core() -> Any:
    """Return the module ray; MissingDependencyError if it is not installed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # for the processes of a cluster that starts here
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError.extra("ray", "ray") from error
    return ray


def ray_serve() -> Any:
    """Return the module ray.serve; MissingDependencyError if it is not installed."""
    ray_core()
    try:
        with warnings.catch_warnings():  # of Ray's own use of pydantic
            warnings.simplefilter("ignore", DeprecationWarning)
            from ray import serve
    except ImportError as error:
        raise MissingDependencyError.extra("ray[serve]", "ray-serve") from error
    return serve
