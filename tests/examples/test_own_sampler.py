"""A sampler that is no part of the package, on the bundle as it is shipped."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difftool.diffusion.invariant import validate
from difftool.diffusion.spec import ModelSpec
from examples import own_sampler
from tests.oracles.analytic import EDM, NCSNV2, START, VP, denoiser, level_pairs, run_table
from tests.oracles.plain_loops import Array

TILES = range(2, 122, 30)  # where the pictures of the grid begin


@pytest.mark.parametrize("spec", [VP, NCSNV2, EDM], ids=["vp", "ncsnv2", "edm"])
def test_the_table_is_the_papers_loop(spec: ModelSpec) -> None:
    """Lu et al. 2022 (DPM-Solver++), algorithm 1 with r = 1/2, and D at the end."""
    program = own_sampler.dpmpp_2s(spec, levels=12)
    proof = validate(program)
    assert program.exact_noise
    assert max(proof.signal_error, proof.noise_error) < 1e-12

    denoise, levels = denoiser(spec), level_pairs(spec, 12, "half_log_snr")
    x: Array = START * program.start.high
    for level, target in pairwise(levels[:-1]):
        low, high = (np.log(alpha / sigma) for alpha, sigma in (level, target))
        h = high - low
        ratio = np.exp(-(low + h / 2))
        alpha = 1 / np.hypot(1, ratio) if spec is VP else 1.0
        u = alpha * ratio / level[1] * x - alpha * np.expm1(-h / 2) * denoise(x, *level)
        x = target[1] / level[1] * x - target[0] * np.expm1(-h) * denoise(u, alpha, alpha * ratio)
    expected = denoise(x, *levels[-2])
    assert np.abs(run_table(spec, program, START * program.start.high) - expected).max() < 1e-10


def test_it_draws_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own_sampler.main(tmp_path / "grid.png")
    assert capsys.readouterr().out.startswith("dpmpp_2s(levels=10, clip=True): 19 evaluations")
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (4 * 30 + 2, 4 * 30 + 2)
        pixels = np.asarray(picture)
    digits = np.stack([pixels[y : y + 28, x : x + 28] for y in TILES for x in TILES])
    ink = (digits > 127).mean(axis=(1, 2))  # of a digit of MNIST 0.13 +- 0.04
    assert 0.03 < ink.min() < ink.max() < 0.3
    assert (digits < 32).mean() > 0.7
