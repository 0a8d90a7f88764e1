"""The inputs of the v2 protocol, of which `difftool serve` and Triton have the same.

Each is a name, with its datatype and shape.
"""

from typing import Final

INPUTS: Final = {
    "n": ("INT64", [1]),
    "seed": ("UINT64", [1]),
    "first_sample": ("INT64", [1]),
    "sampler": ("BYTES", [1]),
    "num_inference_steps": ("INT64", [1]),
    "sampler_arguments": ("BYTES", [1]),  # an object as JSON
    "labels": ("INT64", [-1]),
    "guidance_scale": ("FP64", [1]),
    "strength": ("FP64", [1]),
    "deadline": ("FP64", [1]),
}
"""The parameters of a request: for each its datatype and shape."""
ARRAYS: Final = ("init", "known", "mask")
"""Inputs in FP32, of the shape of one sample or of all; these are no parameters."""
PREVIEWS: Final = "previews"
"""The input that says how many previews of each sample a client of Triton gets, if it reads a
stream.
"""
