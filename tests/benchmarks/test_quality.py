"""Reading samples and grading them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from _frechet import gaussian_of
from _judge import FEATURES, Judge
from quality import grade, graded, read_samples

from difftool.errors import UsageError


class Sees:
    """A judge that reads the digit off the first pixel, and its confidence off the second."""

    def look(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        digits, percent = pixels[:, 0, 0, 0].long(), pixels[:, 0, 0, 1] / 100
        probabilities = ((1 - percent) / 9)[:, None].repeat(1, 10)
        probabilities[torch.arange(len(digits)), digits] = percent
        return probabilities, pixels.flatten(1)[:, :2].float()


def test_a_grade_counts_sure_samples_and_digits() -> None:
    images = torch.zeros(4, 1, 28, 28, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor([3, 3, 3, 7])
    images[:, 0, 0, 1] = torch.tensor([95, 89, 91, 50])
    found = grade(Sees(), images, gaussian_of(images.flatten(1)[:, :2].numpy()))
    assert found.sure == 0.5
    assert found.shares[3] == 0.75
    assert found.shares.sum() == 1
    assert found.distance == pytest.approx(0, abs=1e-6)
    verdicts = [figure.verdict for figure in graded("x", found, 0.5, 0.05, 0.16)]
    assert verdicts == ["pass", "FAIL", "FAIL", ""]


def test_samples_are_read_as_the_runtime_writes_them(tmp_path: Path) -> None:
    images = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28, 1)
    path = tmp_path / "samples.npz"
    np.savez(path, images=images)
    assert (read_samples("ddpm", path, 1).numpy() == images[:1, None, ..., 0]).all()
    with pytest.raises(UsageError, match="no target"):
        read_samples("gan", path, 1)
    with pytest.raises(UsageError, match="draw 3"):
        read_samples("ddpm", path, 3)


def test_the_judge_looks_at_any_number_of_images() -> None:
    torch.manual_seed(0)
    judge = Judge().eval()
    probabilities, features = judge.look(torch.zeros(3, 1, 28, 28, dtype=torch.uint8))
    assert features.shape == (3, FEATURES)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))
