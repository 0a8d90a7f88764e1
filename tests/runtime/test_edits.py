"""Edits of D: in the step graph or from outside, on every sampler, the run is the same."""

import numpy as np
import pytest

from difftool.diffusion import samplers
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.columns import Column
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.runtime.backends.reference import Reference
from difftool.runtime.edits import Edit, inpaint, require_editable
from difftool.runtime.loop import replace_denoised
from tests.oracles.analytic import START, VE, VP, draws, make_network
from tests.oracles.plain_loops import Array

MODELS = {"vp": VP, "ncsn": VE}
MASK = np.array([1.0, 0.0, 1.0, 0.5])
KNOWN = np.random.default_rng(4).uniform(0, 1, START.shape)
POSITIONS = np.arange(len(START))


def run(spec: ModelSpec, program: Program, *, edit: Edit | None) -> tuple[Array, Array]:
    """x and history at the end; without an edit the graph itself sets what is known."""
    batch = Reference(make_network(spec), spec.shape).batch(program, len(START))
    known = (KNOWN.astype(np.float32), MASK) if edit is None else None
    batch.start(START * max(program.start.high, 1), known=known)
    noise = draws()
    for index, row in enumerate(program.table):
        batch.step(next(noise) if row[Column.D] else None)
        if edit is not None:
            replace_denoised(batch, program, index, edit(batch.denoised, POSITIONS))
    return batch.x, batch.history


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_known_values_set_by_the_graph_are_those_that_replace_d(sampler: str, model: str) -> None:
    spec = MODELS[model]
    steps = {"annealed_langevin": len(spec.schedule)}.get(sampler, 10)
    program = samplers.compile_program(spec, SamplerCall(sampler, {"steps": steps}))
    require_editable(program, in_graph=False)
    set_known, replaced = (run(spec, program, edit=edit) for edit in (None, inpaint(KNOWN, MASK)))
    scale = max(1, np.abs(set_known[1]).max())
    for ours, theirs in zip(set_known, replaced, strict=True):
        assert np.abs(ours - theirs).max() < 1e-12 * scale
    if program.targets[-1].tolist() == [1, 0]:
        known = KNOWN.astype(np.float32)[:, MASK == 1]
        assert np.abs(set_known[0][:, MASK == 1] - known).max() < 1e-12 * scale
