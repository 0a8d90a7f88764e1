"""ONNX Runtime and OpenVINO, imported so that they keep to themselves.

Both report to their makers if nobody forbids it. ONNX Runtime, from 1.29 on, writes a device id
and a database into the user's cache and sends events; OpenVINO writes an id into the user's home
and sends an event whenever it is imported. Nothing else in difftool imports them.
"""

import os
import sys
import threading
from typing import Any, Final

from difftool.errors import MissingDependencyError

_OPENVINO_REPORTS: Final = "openvino_telemetry"  # OpenVINO does without, if it is not there
_importing = threading.Lock()


def onnx_runtime() -> Any:
    """ONNX Runtime; MissingDependencyError if it is not installed."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read once, when it is loaded
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError.extra("onnxruntime", "cpu") from error
    onnxruntime.disable_telemetry_events()  # if a host program has loaded it before
    return onnxruntime


def onnx_quantization() -> Any:
    """ONNX Runtime's tools for 8 bits; MissingDependencyError if it is not installed."""
    onnx_runtime()
    try:
        from onnxruntime import quantization
    except ImportError as error:  # they need the package onnx
        raise MissingDependencyError.extra("onnx", "compile") from error
    return quantization


def open_vino() -> Any:
    """OpenVINO; MissingDependencyError if it is not installed."""
    with _importing:
        known = sys.modules.get(_OPENVINO_REPORTS)
        sys.modules[_OPENVINO_REPORTS] = None  # type: ignore[assignment] # cannot be imported
        try:
            import openvino
        except ImportError as error:
            raise MissingDependencyError.extra("openvino", "openvino") from error
        finally:
            del sys.modules[_OPENVINO_REPORTS]
            if known is not None:
                sys.modules[_OPENVINO_REPORTS] = known
    return openvino
