"""`sampler.onnx`: the whole sampler in one graph, for every binding of ONNX Runtime."""
