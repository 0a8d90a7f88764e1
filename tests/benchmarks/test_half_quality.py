"""half_quality.py and its verdict on samples in 16 bits."""

import numpy as np
import pytest
from half_quality import agreement, balance, psnr

from difftool.runtime import open_bundle


def test_psnr_is_that_of_the_span() -> None:
    assert psnr(np.full((4, 4), 0.02), 2.0) == pytest.approx(40)


@pytest.mark.parametrize(("error", "verdict"), [(0.01, "pass"), (0.03, "FAIL"), (np.nan, "FAIL")])
def test_samples_may_differ_by_a_hundredth_of_the_span(error: float, verdict: str) -> None:
    exact = np.zeros((2, 1, 28, 28), np.float32)
    drawn = {"fp32": exact, "fp16": exact + np.float32(error), "bf16": exact}
    fp16, _, bf16, _ = agreement("ddpm-mnist", drawn, open_bundle("ddpm-mnist").spec)
    assert (fp16.verdict, bf16.verdict) == (verdict, "pass")


def test_other_digits_are_seen() -> None:
    rows, columns = np.mgrid[:28, :28]
    ring = np.abs(np.hypot(rows - 14, columns - 14) - 7) < 2
    bar = (np.abs(rows - 14) < 10) & (np.abs(columns - 14) < 2)
    zeros, ones = (np.repeat(2.0 * each[None, None] - 1, 8, axis=0) for each in (ring, bar))
    drawn = {"fp32": zeros, "fp16": zeros, "bf16": ones}
    fp16, same, bf16, other = balance("ddpm-mnist", drawn, open_bundle("ddpm-mnist").spec)
    assert (fp16.verdict, bf16.verdict) == ("pass", "FAIL")
    assert (same.median, other.median) == (1, 0)
