"""Extractors small enough to be written by hand."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

MakeExtractor = Callable[..., Path]


@pytest.fixture
def make_extractor(tmp_path: Path) -> MakeExtractor:
    """Write an extractor whose features are the images' pixels."""

    def make(
        *,
        axes: tuple[int | str, ...] = ("n", "c", "h", "w"),
        kind: int = TensorProto.FLOAT,
        nodes: tuple[tuple[str, ...], ...] = (("Flatten", "x", "features"),),
        preprocess: str | None = None,
    ) -> Path:
        outputs = [helper.make_tensor_value_info(output, kind, None) for _, _, output in nodes]
        graph = helper.make_graph(
            [helper.make_node(op, [source], [output]) for op, source, output in nodes],
            "extractor",
            [helper.make_tensor_value_info("x", kind, axes)],
            outputs,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        if preprocess is not None:
            helper.set_model_props(model, {"difftool.preprocess": preprocess})
        path = tmp_path / "extractor.onnx"
        onnx.save(model, path)
        return path

    return make
