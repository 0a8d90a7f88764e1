"""CUDA without PyTorch: kernels, their compiler, and what drives a GPU with them."""
