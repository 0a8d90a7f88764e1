"""The lowerings that step graphs are exported with: the same numbers by operators that run faster.

One computation can be written in many ways in ONNX, and runtimes differ in how fast they run them.
benchmarks/graph_lowerings.py measures; what it found is in docs/exporting.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import onnx_ir as ir

from difftool.export.lowerings.translations import TRANSLATIONS
from difftool.export.lowerings.upsampling import split_upsampling


@dataclass(frozen=True, kw_only=True)
class Lowerings:
    """How PyTorch's operators become nodes, and what is then rewritten in the graph.

    What `translations` does not name is left to the exporter.
    """

    translations: Mapping[Callable[..., Any], Callable[..., Any]]
    rewrites: tuple[Callable[[ir.Graph], None], ...]


CHOSEN: Final = Lowerings(translations=TRANSLATIONS, rewrites=(split_upsampling,))
