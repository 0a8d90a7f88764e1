"""The forms that step graphs are exported in: the same numbers by operators that run faster.

One computation has many forms in ONNX, and runtimes differ in how fast they run them.
benchmarks/graph_lowerings.py measures; what it found is in docs/exporting.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import onnx_ir as ir

from difftool.export.forms.translations import TRANSLATIONS
from difftool.export.forms.upsampling import split_upsampling


@dataclass(frozen=True, kw_only=True)
class Forms:
    """How PyTorch's operators become nodes, and what is then rewritten in the graph.

    What `translations` does not name is left to the exporter.
    """

    translations: Mapping[Callable[..., Any], Callable[..., Any]]
    rewrites: tuple[Callable[[ir.Graph], None], ...]


CHOSEN: Final = Forms(translations=TRANSLATIONS, rewrites=(split_upsampling,))
