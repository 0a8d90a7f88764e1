"""Opening and calling sampler.onnx."""

from typing import Any

import numpy as np
import onnxruntime

from difftool.bundle import Bundle
from difftool.compile.sampler_onnx.graph import portable_sampler
from difftool.diffusion.program import Program

AGREEMENT = 1e-4  # of float samples


def opened(bundle: Bundle, program: Program | None = None) -> Any:
    graph = portable_sampler(bundle, program or bundle.default_program())
    return onnxruntime.InferenceSession(graph)


def draw(session: Any, *, seed: int = 3, n: int = 2, **given: Any) -> dict[str, np.ndarray]:
    """One call; what is given besides seed and n becomes an array."""
    dtypes = {"first_sample": np.int64, "label": np.int64, "row": np.int64, "rows": np.int64}
    feeds = {"seed": np.array([seed], np.uint64), "n": np.array([n], np.int64)}
    feeds |= {name: np.asarray(given[name], dtypes.get(name, np.float32)) for name in given}
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))
