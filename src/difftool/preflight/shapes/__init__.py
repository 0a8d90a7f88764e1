"""The sizes of a graph's values, and the memory that they take, found without running it."""

from difftool.preflight.shapes.footprint import Footprint, infer

__all__ = ["Footprint", "infer"]
