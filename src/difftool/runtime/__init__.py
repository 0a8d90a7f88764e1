"""The runtime: samples from a bundle, without PyTorch."""

from difftool.runtime.images import to_uint8
from difftool.runtime.model import Model, State, load, shipped_models

__all__ = ["Model", "State", "load", "shipped_models", "to_uint8"]
