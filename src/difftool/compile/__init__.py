"""Compile a bundle, without PyTorch: to 16 or 8 bits, TensorRT, one graph or a web page."""

from difftool.lazy import TYPE_CHECKING, lazily

if TYPE_CHECKING:
    from difftool.compile.engine.compile import (
        CompiledEngine,
        EngineRequest,
        engine_key,
        engine_request,
        tensorrt,
    )
    from difftool.compile.half_bundle import Half, half
    from difftool.compile.quantization.bundle import Quantized, quantize
    from difftool.compile.sampler_onnx.graph import PortableSampler, portable
    from difftool.compile.sampler_onnx.site import Site, web

__all__ = [
    "CompiledEngine",
    "EngineRequest",
    "Half",
    "PortableSampler",
    "Quantized",
    "Site",
    "engine_key",
    "engine_request",
    "half",
    "portable",
    "quantize",
    "tensorrt",
    "web",
]

_HOMES = {
    "CompiledEngine": "difftool.compile.engine.compile",
    "EngineRequest": "difftool.compile.engine.compile",
    "Half": "difftool.compile.half_bundle",
    "PortableSampler": "difftool.compile.sampler_onnx.graph",
    "Quantized": "difftool.compile.quantization.bundle",
    "Site": "difftool.compile.sampler_onnx.site",
    "engine_key": "difftool.compile.engine.compile",
    "engine_request": "difftool.compile.engine.compile",
    "half": "difftool.compile.half_bundle",
    "portable": "difftool.compile.sampler_onnx.graph",
    "quantize": "difftool.compile.quantization.bundle",
    "tensorrt": "difftool.compile.engine.compile",
    "web": "difftool.compile.sampler_onnx.site",
}

__getattr__ = lazily(__name__, _HOMES)
