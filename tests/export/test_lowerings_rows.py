"""Points may have one row number for a batch; what is computed is the same."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from difftool.bundle import STEP
from difftool.diffusion.calls import NetworkCall
from difftool.diffusion.columns import Column
from difftool.diffusion.features import Feature
from difftool.diffusion.spec import ModelSpec
from difftool.export.onnx import export_step
from difftool.export.step import StepModule
from difftool.networks import build_network
from tests.fixtures import POINTS_NETWORK, POINTS_SPEC

LABELLED = replace(POINTS_SPEC, classes=3, null_label=True)


def axis_of_row(path: Path) -> Any:
    session = onnxruntime.InferenceSession(str(path))
    return next(node.shape for node in session.get_inputs() if node.name == "row")


def exported(spec: ModelSpec, path: Path, features: Sequence[Feature] = ()) -> Path:
    labels = {"classes": spec.classes, "null_label": spec.null_label}
    call = NetworkCall(POINTS_NETWORK.kind, {**POINTS_NETWORK.arguments, **labels})
    network = build_network(call)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    export_step(StepModule(network, spec, features), path)
    return path


def run(path: Path, row: Sequence[int], size: int = 4) -> list[Any]:
    random = np.random.default_rng(0)

    def floats(*shape: int) -> Any:
        return random.normal(size=shape).astype(np.float32)

    feed = {"x": floats(size, 2), "history": floats(2, size, 2), "noise": floats(size, 2)}
    table = floats(3, Column.HISTORY + 2)
    table[:, [Column.COND, Column.NULL_COND]] = [[0, 1], [1, 2], [2, 0]]
    feed |= {"row": np.array(row), "table": table, "cond_table": floats(3, 32)}
    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, {node.name: feed[node.name] for node in session.get_inputs()})


@pytest.mark.parametrize("features", [(), (Feature.NORMS,)])
def test_one_row_stands_for_all(features: tuple[Feature, ...], tmp_path: Path) -> None:
    path = exported(POINTS_SPEC, tmp_path / STEP, features)
    assert axis_of_row(path) == ["one_or_batch"]
    one, each = run(path, [1]), run(path, [1] * 4)
    for name, alone, together in zip(("x", "history", "row", "denoised"), one, each, strict=True):
        np.testing.assert_array_equal(alone, together[:1] if name == "row" else together)
    if features:  # which are means over the batch, whatever its rows
        return
    mixed = run(path, [1, 0, 1, 2])
    np.testing.assert_array_equal(mixed[0][::2], one[0][::2])
    assert not np.isclose(mixed[0][1], one[0][1]).any()


def test_guided_points_have_a_row_each(tmp_path: Path) -> None:
    assert axis_of_row(exported(LABELLED, tmp_path / STEP, (Feature.GUIDANCE,))) == ["batch"]


def test_images_have_a_row_each(tiny_bundle: Path) -> None:
    assert axis_of_row(tiny_bundle / STEP) == ["batch"]
