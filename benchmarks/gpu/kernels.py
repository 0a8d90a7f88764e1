"""Count the kernels that an engine of TensorRT for RTX launches in a step, without a GPU.

TensorRT's inspector opens engines on a GPU alone. But such an engine says in plain text, in its
first block `main`, what it does in order: its kernels, and where its streams wait for each other.
"""

import re

_MAIN = re.compile(r"^main \{$(.*?)^\}$", re.DOTALL | re.MULTILINE)
_ENTRY = re.compile(r"^ +(\w+)=\{ name=\"?([^\"\s]*)", re.MULTILINE)
_NO_KERNEL = frozenset({"shape_call", "signal", "wait"})


def kernels(engine: bytes) -> list[str]:
    """List the names of an engine's kernels; ValueError if it has no list of them."""
    found = _MAIN.search(engine.decode("latin1"))
    if found is None:
        raise ValueError("this engine does not list its kernels")
    return [name for kind, name in _ENTRY.findall(found[1]) if kind not in _NO_KERNEL]
