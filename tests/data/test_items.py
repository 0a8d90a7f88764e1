"""Arrays of a Python program become a data set."""

from typing import Any

import numpy as np
import pytest

from difftool.data import from_array
from difftool.errors import UsageError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (3, 4, 6), dtype=np.uint8)


def test_images_and_points() -> None:
    assert np.array_equal(from_array(GREY).values, GREY[:, None])
    colour = RNG.integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    assert np.array_equal(from_array(colour).values, np.moveaxis(colour, 3, 1))
    points = RNG.normal(size=(5, 2))
    found = from_array(points)
    assert found.values.dtype == np.float32
    np.testing.assert_allclose(found.values, points, rtol=1e-6)


def test_labels_and_names() -> None:
    found = from_array(GREY, [1, 0, 1], ["ant", "bee", "cat"])
    assert (found.classes, found.names) == (3, ("ant", "bee", "cat"))
    assert found.labels.tolist() == [1, 0, 1]
    assert from_array(GREY, [1, 0, 1]).classes == 2


def test_a_digest_tells_any_other_array() -> None:
    found = [from_array(GREY), from_array(GREY.reshape(3, 6, 4)), from_array(GREY, [0, 1, 0])]
    assert len({each.sha256 for each in found}) == 3
    assert from_array(GREY.copy()).sha256 == found[0].sha256


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((GREY / 255,), r"float64 \[3, 4, 6\] is no data"),
        ((GREY.astype(np.int64),), "int64 .* is no data"),
        ((GREY[0],), r"uint8 \[4, 6\] is no data"),
        ((np.zeros((2, 3, 8, 8), np.uint8),), "is no data"),
        ((np.zeros((0, 8, 8), np.uint8),), "holds no data"),
        (([[0.0, np.nan]],), "is no data"),
        (([[object()]],), "is no data"),
        ((GREY, [0, 1]), "of 3 items"),
        ((GREY, [0.0, 1.0, 2.0]), "of 3 items"),
        ((GREY, [0, -1, 1]), "go from -1 to 1"),
        ((GREY, [0, 1, 2], ["a", "b"]), "go from 0 to 2"),
        ((GREY, [0, 1, 1], ["a", "a"]), "names of the classes"),
        ((GREY, None, ["a"]), "without `labels`"),
    ],
    ids=range(13),
)
def test_what_is_no_data(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_array(*given)
