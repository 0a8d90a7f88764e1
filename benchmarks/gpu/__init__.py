"""The benchmark of GPUs, which `benchmarks/gpu.py` starts."""
