"""Compile a bundle, without PyTorch: to 16 or 8 bits, TensorRT, one graph, a web page or Triton."""

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
    from difftool.compile.repository.written import TritonRepository, triton
    from difftool.compile.sampler_onnx.graph import PortableSampler, portable
    from difftool.compile.sampler_onnx.site import Site, web

__all__ = [
    "CompiledEngine",
    "EngineRequest",
    "Half",
    "PortableSampler",
    "Quantized",
    "Site",
    "TritonRepository",
    "engine_key",
    "engine_request",
    "half",
    "portable",
    "quantize",
    "tensorrt",
    "triton",
    "web",
]

_HOMES = {
    "CompiledEngine": "difftool.compile.engine.compile",
    "EngineRequest": "difftool.compile.engine.compile",
    "Half": "difftool.compile.half_bundle",
    "PortableSampler": "difftool.compile.sampler_onnx.graph",
    "Quantized": "difftool.compile.quantization.bundle",
    "Site": "difftool.compile.sampler_onnx.site",
    "TritonRepository": "difftool.compile.repository.written",
    "engine_key": "difftool.compile.engine.compile",
    "engine_request": "difftool.compile.engine.compile",
    "half": "difftool.compile.half_bundle",
    "portable": "difftool.compile.sampler_onnx.graph",
    "quantize": "difftool.compile.quantization.bundle",
    "tensorrt": "difftool.compile.engine.compile",
    "triton": "difftool.compile.repository.written",
    "web": "difftool.compile.sampler_onnx.site",
}

__getattr__ = lazily(__name__, _HOMES)
