"""Torch's settings are global, and this benchmark changes them."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def torch_as_it_was() -> Iterator[None]:
    precision = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(precision)
