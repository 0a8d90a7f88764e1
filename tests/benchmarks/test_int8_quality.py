"""The verdict on int8's samples."""

import pytest
from int8_quality import compared


@pytest.mark.parametrize(
    ("int8", "verdict"), [(2.2, "pass"), (2.4, "FAIL"), (float("nan"), "FAIL")]
)
def test_int8_may_be_a_little_further_off(int8: float, verdict: str) -> None:
    *_, ratio = compared(100, 2.0, int8)
    assert ratio.verdict == verdict
