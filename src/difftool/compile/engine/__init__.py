"""Engines: a bundle's step graph compiled by TensorRT, on machines with and without a GPU."""
