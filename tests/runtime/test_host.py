"""A batch binds a row number for each sample, or one if the graph takes one and all agree."""

from collections.abc import Callable

import numpy as np
import pytest

from difftool.diffusion.columns import Column
from difftool.diffusion.labels import Labels, lay_out_rows
from difftool.diffusion.samplers import ddim
from difftool.runtime.backends.host import Arrays, HostBatch
from difftool.runtime.backends.prepare import Prepared
from tests.fixtures import CLASSES_SPEC


@pytest.mark.parametrize(
    ("labels", "one_row", "expected"),
    [((1, 1, 1), True, 1), ((0, 1, 1), True, 3), ((1, 1, 1), False, 3)],
)
def test_row_numbers(labels: tuple[int, ...], one_row: bool, expected: int) -> None:
    bound: list[Arrays] = []

    def bind(inputs: Arrays, outputs: Arrays) -> Callable[[], None]:
        bound.extend((inputs, outputs))
        return lambda: None

    program = ddim(CLASSES_SPEC, steps=4)
    rows = lay_out_rows(program, CLASSES_SPEC, 3, Labels(np.array(labels)))
    shape = (3, *CLASSES_SPEC.shape)
    table = np.zeros((len(rows.conds), 1), np.float32)
    begin = Prepared(rows, table, shape)
    batch = HostBatch(bind, {"x", "row"}, begin, one_row=one_row)
    batch.start(np.zeros(shape, np.float32), row=2)
    inputs, outputs = bound[:2]
    assert inputs["row"].tolist() == (rows.first + 2).tolist()[:expected]
    assert outputs["row_next"].shape == (expected,)


def test_a_batch_says_whether_a_row_of_it_is_guided() -> None:
    said: list[int] = []

    def bind(inputs: Arrays, outputs: Arrays) -> Callable[[], None]:
        return lambda: said.append(int(inputs["guided"][0]))

    program = ddim(CLASSES_SPEC, steps=4)
    rows = lay_out_rows(program, CLASSES_SPEC, 2, Labels(np.array([0, 1])))
    rows.table[len(program) + 1, Column.GUIDANCE] = 2.0  # the second row of the second sample
    shape = (2, *CLASSES_SPEC.shape)
    batch = HostBatch(bind, {"row", "guided"}, Prepared(rows, np.zeros((1, 1), np.float32), shape))
    for row in (0, 1, np.array([1, 2])):
        batch.start(np.zeros(shape, np.float32), row=row)
        batch.step(None)
    assert said == [0, 1, 0]
