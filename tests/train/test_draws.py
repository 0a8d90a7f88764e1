"""Everything random is a pure function of (seed, step, slot)."""

import numpy as np
import pytest
import torch

from difftool.train import draws

SLOTS = np.arange(12)


def test_a_batch_is_the_same_however_it_is_split() -> None:
    for draw in (
        lambda slots: draws.normal(7, 4, slots, (3, 2)),
        lambda slots: draws.levels(7, 4, slots, 1000),
        lambda slots: draws.flips(7, 4, slots),
        lambda slots: draws.drops(7, 4, slots, 0.5),
        lambda slots: draws.dither(7, 4, slots, (5,)),
        lambda slots: draws.projections(7, 4, slots, (2,)),
    ):
        whole = draw(SLOTS)
        parts = torch.cat([draw(part) for part in np.split(SLOTS, 3)])
        assert torch.equal(whole, parts)


def test_levels_and_flips_are_uniform() -> None:
    slots = np.arange(20_000)
    levels = draws.levels(1, 0, slots, 7)
    counts = torch.bincount(levels, minlength=7).double()
    assert len(counts) == 7
    assert ((counts - 20_000 / 7).abs() < 5 * (20_000 / 7) ** 0.5).all()
    assert abs(draws.flips(1, 0, slots).double().mean() - 0.5) < 0.02


def test_choices_come_as_often_as_they_weigh() -> None:
    slots, weights = np.arange(20_000), np.array([3.0, 0.0, 1.0, 4.0])
    chosen = draws.choices(1, 0, slots, weights)
    counts, wanted = np.bincount(chosen, minlength=4), 20_000 * weights / 8
    assert len(counts) == 4
    assert (np.abs(counts - wanted) <= 5 * np.sqrt(wanted)).all()
    assert draws.choices(1, 0, slots[7:9], weights).tolist() == chosen[7:9].tolist()
    assert set(draws.choices(1, 0, slots, np.ones(1))) == {0}


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.7])
def test_labels_are_withheld_as_often_as_asked(probability: float) -> None:
    dropped = draws.drops(1, 0, np.arange(20_000), probability)
    assert abs(dropped.double().mean() - probability) <= 5 * (probability / 20_000) ** 0.5
    flipped = draws.flips(1, 0, np.arange(20_000))
    assert not torch.equal(dropped, flipped)


def test_streams_do_not_repeat_each_other() -> None:
    noise = draws.normal(1, 0, SLOTS, (4,))
    assert not torch.equal(noise, draws.projections(1, 0, SLOTS, (4,)))
    assert not torch.equal(noise, draws.normal(1, 1, SLOTS, (4,)))
    assert not torch.equal(noise, draws.normal(2, 0, SLOTS, (4,)))
    seeds = {draws.torch_seed(1, step, process) for step in range(20) for process in range(3)}
    assert len(seeds) == 60
    assert all(0 <= seed < 1 << 64 for seed in seeds)
