"""CUDA without PyTorch: kernels, their compiler, and the backend that drives a GPU with them."""
