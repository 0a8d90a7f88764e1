"""The lowerings of step graphs: ONNX operators that give the same numbers and run faster.

A computation can be written in many ways in ONNX, and a runtime runs some of them faster than
others. benchmarks/graph_lowerings.py measures them; docs/exporting.md has the results.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import onnx_ir as ir

from difftool.export.lowerings.translations import TRANSLATIONS
from difftool.export.lowerings.upsampling import split_upsampling


@dataclass(frozen=True, kw_only=True)
class Lowerings:
    """Translations of PyTorch's operators to nodes, and rewrites of the graph that results.

    The exporter translates the operators that `translations` does not name.
    """

    translations: Mapping[Callable[..., Any], Callable[..., Any]]
    rewrites: tuple[Callable[[ir.Graph], None], ...]


CHOSEN: Final = Lowerings(translations=TRANSLATIONS, rewrites=(split_upsampling,))
