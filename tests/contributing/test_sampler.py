"""A sampler is one new file and one line."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.contributing.conftest import Project, listed

SAMPLER = '''
"""DDIM with a share of the posterior's noise."""

from difftool.diffusion.builder import ProgramBuilder, sampler
from difftool.diffusion.program import Program
from difftool.diffusion.samplers.transfer import fresh_noise, transfer
from difftool.diffusion.spacing import LINSPACE, steps_or, transitions, visited
from difftool.diffusion.spec import ModelSpec


@sampler
def mine(
    spec: ModelSpec, *, steps: int | None = None, share: float = 0.5, clip: bool = True
) -> Program:
    """DDIM (Song et al. 2021a, eq. 16); `share` is what the paper calls eta."""
    steps = steps_or(steps, 50, spec.schedule)
    builder = ProgramBuilder(spec, clip=clip)
    for level, target in transitions(visited(spec.schedule, steps, LINSPACE)):
        here, there = builder.level(level), builder.level(target)
        fresh = share * fresh_noise(here, there, eta=1.0)
        a, b = transfer(here, there, fresh)
        builder.row(level, target, a=a, b=b, d=fresh)
    return builder.build({"steps": steps})
'''

TEST = '''
"""The sampler `mine` is the loop of its paper."""

from itertools import pairwise

import numpy as np
import pytest

from difftool.diffusion.invariant import validate
from difftool.diffusion.samplers import mine
from difftool.diffusion.schedules import linear
from difftool.diffusion.spec import ModelSpec
from difftool.runtime.backends.reference import Reference

SPEC = ModelSpec(shape=(4,), schedule=linear(), parameterization="epsilon", cond="timestep")
LEVELS = np.linspace(999, 0, 12).round().astype(int)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_table_is_the_papers_loop(share: float) -> None:
    """Song et al. 2021a, eq. 12 and 16, with a network that takes half of x for noise."""
    program = mine(SPEC, steps=12, share=share)
    proof = validate(program)
    assert max(proof.signal_error, proof.noise_error) < 1e-12
    x, *noise = np.random.default_rng(0).normal(size=(13, 1, 4))
    batch = Reference(lambda x, cond: x / 2, SPEC.shape).batch(program, 1)
    batch.start(x)
    for draw in noise:
        batch.step(draw)
    visited = [SPEC.schedule.at(level) for level in LEVELS]
    levels = pairwise([*visited, (1.0, 0.0)])
    for ((alpha, sigma), (alpha_next, sigma_next)), draw in zip(levels, noise, strict=True):
        epsilon = x / 2
        clean = (x - sigma * epsilon) / alpha
        fresh = share * sigma_next / sigma * np.sqrt(1 - (alpha / alpha_next) ** 2)
        x = alpha_next * clean + np.sqrt(sigma_next**2 - fresh**2) * epsilon + fresh * draw
    assert np.abs(batch.x - x).max() < 1e-10
'''

LIST = "src/difftool/diffusion/samplers/__init__.py"


@pytest.fixture(scope="module")
def sampler(project: Project) -> Project:
    project.write("src/difftool/diffusion/samplers/mine.py", SAMPLER)
    line = "from difftool.diffusion.samplers.mine import mine as mine\n"
    project.insert(LIST, after="from difftool.diffusion.samplers.consistency", lines=line)
    project.write("tests/diffusion/test_mine.py", TEST)
    project.python("docs/samplers.py")
    return project


def test_the_list_names_all_files(sampler: Project) -> None:
    assert sampler.changed() == listed("A sampler")
    assert len(sampler.added(LIST)) == 1
    row = "| `mine` | `share=0.5`, `clip=true` | Song et al. 2021a, eq. 16 |"
    assert sampler.added("docs/sampling.md") == [row]


def test_commands_find_it(sampler: Project, tmp_path: Path) -> None:
    said = sampler.difftool(
        tmp_path,
        "program ddpm-mnist --sampler mine --steps 5 --arg share=1 --out program.json",
        "sample ddpm-mnist --sampler mine --steps 2 -n 1 --threads 1 --out drawn.npy",
        "samplers --json",
    )
    assert said.startswith("mine(steps=5, share=1, clip=True)")
    program = json.loads((tmp_path / "program.json").read_text())
    assert program["arguments"] == {"steps": 5, "share": 1, "clip": True}
    assert np.isfinite(np.load(tmp_path / "drawn.npy")).all()
    *others, last = json.loads(said[said.index("\n{") :]).items()
    assert len(others) > 10
    assert last[0] == "mine"
    assert last[1]["arguments"]["share"] == {"type": "float", "default": 0.5}


def test_tests_find_it(sampler: Project) -> None:
    own, every = "tests/diffusion/test_mine.py", "tests/cli/test_samplers.py"
    chosen = "table_of_samplers or papers_loop or (name_is_enough and mine)"
    said = sampler.test(own, every, "tests/test_docs.py", "-rA", "-k", chosen)
    assert f"PASSED {every}::test_a_name_is_enough[mine-" in said
    assert "PASSED tests/test_docs.py::test_the_table_of_samplers" in said
