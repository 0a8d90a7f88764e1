"""How large the values of a graph are, and how much memory they take: known before it runs."""

from difftool.preflight.shapes.footprint import Footprint, infer

__all__ = ["Footprint", "infer"]
