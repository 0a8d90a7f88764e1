"""Labels and guidance on models whose scores are known exactly, in float64.

A label picks one Gaussian of the mixture of `plain_loops`; the null label means the whole mixture.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from difftool.diffusion.columns import Column
from difftool.diffusion.labels import Labels, lay_out_rows
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import annealed_langevin, ddim, ddpm
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.runtime.backends.reference import Reference
from tests.oracles import analytic, plain_loops
from tests.oracles.analytic import START, Array

CLASSES = len(plain_loops.CENTERS)
NULL = CLASSES
VP = replace(analytic.VP, classes=CLASSES, null_label=True)
VE = replace(analytic.VE, classes=CLASSES, null_label=True)
MIXED = np.array([3, 0, NULL, 3, 1, 4, 2])

Indices = NDArray[np.int64]


def score(x: Array, alpha: float, sigma: float, label: Indices) -> Array:
    """The score of each sample's Gaussian under noise, or of the mixture; [N, 4]."""
    variance = alpha**2 * plain_loops.SPREAD + sigma**2
    own = (alpha * plain_loops.CENTERS[label % CLASSES] - x) / variance
    mixture = (alpha * plain_loops.mixture_denoiser(x, alpha, sigma) - x) / sigma**2
    return np.where(label[:, None] == NULL, mixture, own)


def network_of(spec: ModelSpec) -> Callable[[Array, Array, Indices], Array]:
    """The network of this parameterization whose score is that, exactly."""

    def network(scaled: Array, cond: Array, label: Indices) -> Array:
        level = float(cond[0]) if spec.cond == "timestep" else len(spec.schedule) - 1 - cond[0]
        alpha, sigma = (float(value) for value in spec.schedule.at(level))
        c_in, c_skip, c_out = spec.coefficients(level)
        x = scaled / c_in
        denoised = (x + sigma**2 * score(x, alpha, sigma, label)) / alpha
        return (denoised - c_skip * x) / c_out

    return network


def guided_denoiser(label: Indices, scale: float) -> plain_loops.Denoiser:
    """D of the two scores combined (Ho and Salimans 2021, eq. 6, with scale = 1 + w)."""

    def denoise(x: Array, alpha: float, sigma: float) -> Array:
        conditional = score(x, alpha, sigma, label)
        unconditional = score(x, alpha, sigma, np.full_like(label, NULL))
        combined = unconditional + scale * (conditional - unconditional)
        return (x + sigma**2 * combined) / alpha

    return denoise


def run_reference(spec: ModelSpec, program: Program, x: Array, labels: Labels) -> Array:
    backend = Reference(network_of(spec), spec.shape, null_label=spec.classes)
    batch = backend.batch(program, len(x), labels)
    batch.start(x)
    noise = analytic.draws()
    for row in program.table:
        batch.step(next(noise) if row[Column.D] else None)
    return batch.x


def alpha_bars(steps: int) -> list[float]:
    return [alpha**2 for alpha, _ in analytic.levels_of(VP, steps, "linspace")[:-1]]


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0, 7.5])
def test_guided_ddim_is_the_plain_loop_over_two_scores(scale: float) -> None:
    program = ddim(VP, steps=25, eta=0.5)
    found = run_reference(VP, program, START, Labels(MIXED, scale))
    expected = plain_loops.implicit(
        START,
        alpha_bars(25),
        guided_denoiser(MIXED, scale),
        analytic.draws().__next__,
        eta=0.5,
        raw_epsilon=False,
    )
    assert np.abs(found - expected).max() < 1e-10


def test_guided_ddpm_is_the_plain_loop_over_two_scores() -> None:
    expected = plain_loops.ancestral(
        START,
        VP.schedule.alpha[::-1] ** 2,
        guided_denoiser(MIXED, 3.0),
        analytic.draws().__next__,
        large=False,
    )
    found = run_reference(VP, ddpm(VP), START, Labels(MIXED, 3.0))
    assert np.abs(found - expected).max() < 1e-10


def test_guided_langevin_is_the_plain_loop_over_two_scores() -> None:
    expected = plain_loops.annealed(
        START,
        VE.schedule.sigma[::-1],
        guided_denoiser(MIXED, 2.0),
        analytic.draws().__next__,
        step_size=2e-5,
        each=3,
        image=False,
        last=False,
    )
    program = annealed_langevin(VE, steps=30, step_size=2e-5, convention="paper", denoise=False)
    found = run_reference(VE, program, START, Labels(MIXED, 2.0))
    assert np.abs(found - expected).max() < 1e-10


def test_scale_1_is_the_conditional_model_and_0_that_without_labels() -> None:
    program = ddim(VP, steps=10)
    plain = run_reference(VP, program, START, Labels(MIXED))
    guided = run_reference(VP, program, START, Labels(MIXED, 1 + 1e-12))
    assert np.abs(guided - plain).max() < 1e-9
    nothing = run_reference(VP, program, START, Labels(MIXED, 0.0))
    assert np.abs(nothing - analytic.run_table(analytic.VP, program, START)).max() < 1e-10


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_rows_of_a_mixed_batch_are_each_samples_own_run(scale: float) -> None:
    """What a backend is given, followed by hand: its table, conds, labels and first rows."""
    program = ddim(VP, steps=12)
    rows, network = lay_out_rows(program, VP, len(START), Labels(MIXED, scale)), network_of(VP)
    assert rows.labels is not None
    for sample, (start, first) in enumerate(zip(START, rows.first, strict=True)):
        x = start[None]
        for row in rows.table[first : first + len(program)]:
            cond, null = (int(row[column]) for column in (Column.COND, Column.NULL_COND))
            wanted, without = (
                network(row[Column.C_IN] * x, rows.conds[[u]], rows.labels[[u]])
                for u in (cond, null)
            )
            output = without + row[Column.GUIDANCE] * (wanted - without)
            denoised = np.clip(row[Column.C_SKIP] * x + row[Column.C_OUT] * output, -1, 1)
            x = row[Column.A] * x + row[Column.B] * denoised
        expected = plain_loops.implicit(
            start[None],
            alpha_bars(12),
            guided_denoiser(MIXED[[sample]], scale),
            lambda: np.zeros(4),
            eta=0.0,
            raw_epsilon=False,
        )
        assert np.abs(x - expected).max() < 1e-10


def test_labels_cost_one_block_each_and_the_null_label_is_not_fed_twice() -> None:
    program = ddim(VP, steps=6)
    for scale, labels, blocks, fed in (
        (1.0, [2, 2, 0], 2, [0, 2]),
        (3.0, [2, 2, 0], 2, [0, 2, NULL]),
        (3.0, [2, NULL], 2, [2, NULL]),
    ):
        rows = lay_out_rows(program, VP, len(labels), Labels(np.array(labels), scale))
        assert rows.table.shape == (blocks * 6, program.table.shape[1])
        assert rows.labels is not None
        assert rows.labels.tolist() == np.repeat(fed, len(program.conds)).tolist()
        assert rows.conds.tolist() == program.conds.tolist() * len(fed)


def test_without_labels_a_model_with_classes_is_told_of_none() -> None:
    program = ddim(VP, steps=6)
    rows = lay_out_rows(program, VP, 3, None)
    assert rows.labels is not None
    assert set(rows.labels) == {NULL}
    plain = lay_out_rows(program, analytic.VP, 3, None)
    assert plain.labels is None
    assert np.array_equal(plain.table, rows.table)


@pytest.mark.parametrize(
    ("spec", "labels", "message"),
    [
        (analytic.VP, Labels(np.array([0])), "no class labels"),
        (VP, Labels(np.array([0, 6])), r"no class 6 in a model of 5 \(labels are 0 to 5\)"),
        (VP, Labels(np.array([-1])), "no class -1"),
        (VP, Labels(np.array([1]), float("nan")), "guidance_scale nan"),
        (replace(VP, null_label=False), Labels(np.array([5])), "with labels only.*0 to 4"),
        (replace(VP, null_label=False), None, "with labels only.*0 to 4"),
        (replace(VP, null_label=False), Labels(np.array([1]), 2.0), "never learned.*label_dropout"),
    ],
)
def test_refusals_are_one_line(spec: ModelSpec, labels: Labels | None, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        lay_out_rows(ddim(spec, steps=5), spec, 1 if labels is None else len(labels.of), labels)
    assert "\n" not in str(caught.value)
