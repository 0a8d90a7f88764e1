"""Labels and guidance on models whose scores are known exactly, in float64.

A label picks one Gaussian of the mixture of `plain_loops`; the null label means the whole mixture.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from difftool.diffusion.columns import Column
from difftool.diffusion.labels import Labels, class_index, class_indices, lay_out_rows
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import annealed_langevin, ddim, ddpm
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from tests.oracles import analytic, plain_loops
from tests.oracles.analytic import START, make_network
from tests.oracles.plain_loops import Array

CLASSES = len(plain_loops.CENTERS)
NULL = CLASSES
VP = replace(analytic.VP, classes=CLASSES, null_label=True)
VE = replace(analytic.VE, classes=CLASSES, null_label=True)
MIXED = np.array([3, 0, NULL, 3, 1, 4, 2])

Indices = NDArray[np.int64]


def score(x: Array, alpha: float, sigma: float, label: Indices) -> Array:
    """Return the score of each sample's Gaussian under noise, or of the mixture; [N, 4]."""
    variance = alpha**2 * plain_loops.SPREAD + sigma**2
    own = (alpha * plain_loops.CENTERS[label % CLASSES] - x) / variance
    mixture = (alpha * plain_loops.mixture_denoiser(x, alpha, sigma) - x) / sigma**2
    return np.where(label[:, None] == NULL, mixture, own)


def labelled(x: Array, alpha: float, sigma: float, label: Indices) -> Array:
    """Return D of that score."""
    return (x + sigma**2 * score(x, alpha, sigma, label)) / alpha


def guided_denoiser(label: Indices, scale: float) -> plain_loops.Denoiser:
    """Return D of the two scores combined (Ho and Salimans 2021, eq. 6, with scale = 1 + w)."""

    def denoise(x: Array, alpha: float, sigma: float) -> Array:
        conditional = score(x, alpha, sigma, label)
        unconditional = score(x, alpha, sigma, np.full_like(label, NULL))
        combined = unconditional + scale * (conditional - unconditional)
        return (x + sigma**2 * combined) / alpha

    return denoise


def run(spec: ModelSpec, program: Program, labels: Labels) -> Array:
    return analytic.run_table(spec, program, START, labelled, labels=labels)


def alpha_bars(steps: int) -> list[float]:
    return [alpha**2 for alpha, _ in analytic.level_pairs(VP, steps, "linspace")[:-1]]


@pytest.mark.parametrize(
    ("spec", "program", "scale", "loop", "levels", "options"),
    [
        *(
            (VP, ddim(VP, steps=25, eta=0.5), scale, plain_loops.implicit, alpha_bars(25),
             {"eta": 0.5, "raw_epsilon": False})
            for scale in (0.0, 0.5, 1.0, 3.0, 7.5)
        ),
        (VP, ddpm(VP), 3.0, plain_loops.ancestral, VP.schedule.alpha[::-1] ** 2, {"large": False}),
        (
            VE, annealed_langevin(VE, steps=30, step_size=2e-5, convention="paper", denoise=False),
            2.0, plain_loops.annealed, VE.schedule.sigma[::-1],
            {"step_size": 2e-5, "each": 3, "image": False, "last": False},
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Program) else None,
)  # fmt: skip
def test_guidance_is_the_plain_loop_over_two_scores(
    spec: ModelSpec,
    program: Program,
    scale: float,
    loop: Callable[..., Array],
    levels: list[float],
    options: dict[str, Any],
) -> None:
    guided = guided_denoiser(MIXED, scale)
    expected = loop(START, levels, guided, analytic.same_draws(), **options)
    assert np.abs(run(spec, program, Labels(MIXED, scale)) - expected).max() < 1e-10


def test_scale_1_is_the_conditional_model_and_0_that_without_labels() -> None:
    program = ddim(VP, steps=10)
    plain = run(VP, program, Labels(MIXED))
    guided = run(VP, program, Labels(MIXED, 1 + 1e-12))
    assert np.abs(guided - plain).max() < 1e-9
    nothing = run(VP, program, Labels(MIXED, 0.0))
    assert np.abs(nothing - analytic.run_table(analytic.VP, program, START)).max() < 1e-10


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_rows_of_a_mixed_batch_are_each_samples_own_run(scale: float) -> None:
    """Table, conds, labels and first rows, which a backend is given, are followed by hand."""
    program = ddim(VP, steps=12)
    rows = lay_out_rows(program, VP, len(START), Labels(MIXED, scale))
    network = make_network(VP, labelled)
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
        assert rows.labels.tolist() == np.repeat(fed, len(program.conds)).tolist()
        assert rows.conds.tolist() == program.conds.tolist() * len(fed)


def test_without_labels_a_model_with_classes_is_told_of_none() -> None:
    program = ddim(VP, steps=6)
    rows = lay_out_rows(program, VP, 3, None)
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


def named(*names: str) -> ModelSpec:
    return replace(VP, classes=len(names), class_names=names)


def test_a_class_has_an_index_and_a_name() -> None:
    spec = named("cat", "dog", "none-such")
    assert class_indices(spec, ["dog", 0, "none", "2", "none-such"]).tolist() == [1, 0, 3, 2, 2]
    with pytest.raises(UsageError, match=r"no class 'cow' in a model of 3 .*: cat, dog, none-such"):
        class_index(spec, "cow")
    with pytest.raises(UsageError, match="they have no names"):
        class_index(VP, "cat")
    with pytest.raises(UsageError, match="no class labels"):
        class_index(analytic.VP, "cat")


def test_numbers_that_are_names_are_no_indices() -> None:
    spec = named("1", "10", "2")
    assert class_indices(spec, ["1", "2", "10"]).tolist() == [0, 2, 1]
    with pytest.raises(UsageError, match="no class '0'"):
        class_index(spec, "0")


def test_names_are_kept_in_a_spec_that_has_some() -> None:
    spec = named("cat", "dog")
    assert ModelSpec.from_dict(spec.to_dict()).class_names == spec.class_names
    assert spec.to_dict()["class_names"] == ["cat", "dog"]
    assert "class_names" not in VP.to_dict()


@pytest.mark.parametrize(
    "names",
    [("cat",), ("cat", "cat"), ("cat", ""), ("cat", " "), ("a", "b\n"), ("a", "b" * 70_000)],
    ids=range(6),
)
def test_names_that_are_none(names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="the names of 2 classes are"):
        replace(VP, classes=2, class_names=names)
    with pytest.raises(UsageError):
        ModelSpec.from_dict({**VP.to_dict(), "classes": 2, "class_names": list(names)})
