"""Programs as data: saved, loaded, printed, and refused if they are not whole."""

import json
from pathlib import Path

import numpy as np
import pytest

from difftool.diffusion.builder import ProgramBuilder, sampler
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.columns import Column
from difftool.diffusion.printing import program_text
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import annealed_langevin, ddim, ddpm
from difftool.diffusion.spacing import transitions, visited
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError
from tests.oracles.analytic import VE, VP


@pytest.mark.parametrize("program", [ddpm(VP), ddim(VP, eta=0.3), annealed_langevin(VP)])
def test_a_saved_program_is_the_same_bit_for_bit(program: Program, tmp_path: Path) -> None:
    program.save(tmp_path / "program.json")
    again = Program.load(tmp_path / "program.json")
    for name in ("table", "conds", "draws", "targets"):
        assert np.array_equal(getattr(again, name), getattr(program, name))
    assert again.name == program.name
    assert again.start == program.start
    assert again.exact_noise == program.exact_noise


def test_distinct_conds_are_stored_once() -> None:
    program = annealed_langevin(VE, steps=1000)
    assert len(program.conds) == 10
    cond = program.conds[program.table[:, Column.COND].astype(int)]
    assert cond.tolist() == [level for level in range(10) for _ in range(100)] + [9]


def test_a_program_prints_its_call_and_its_ends() -> None:
    text = str(ddim(VP, steps=100))
    lines = text.splitlines()
    assert lines[0].startswith("ddim(steps=100, eta=0.0, clip=True, raw_epsilon=False): 100 eval")
    assert lines[1].split()[:3] == ["row", "cond", "c_skip"]
    assert "(90 more)" in text
    assert lines[-1].split()[0] == "99"
    assert lines[-1].split()[-2:] == ["1", "0"]  # ends at alpha 1, sigma 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"format": "1"}, "not a difftool program"),
        ({"table": [[1.0, 2.0]]}, "columns"),
        ({"table": []}, "0 rows"),
        ({"draws": [1]}, "do not fit"),
        ({"conds": []}, "outside"),
        ({"start": "gamma(0, 1)"}, "gamma"),
        ({"targets": None}, "whole"),
        *((text, ".") for text in ("", "{", "[1]", '{"format": 1}', '{"format": 1, "format": 1}')),
    ],
)
def test_a_damaged_file_is_refused(
    change: dict[str, object] | str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "program.json"
    ddim(VP, steps=3).save(path)
    whole = json.loads(path.read_text())
    path.write_text(change if isinstance(change, str) else json.dumps({**whole, **change}))
    with pytest.raises(ArtefactError, match=message):
        Program.load(path)


def test_a_long_program_is_printed_by_its_ends_alone() -> None:
    class Counted(list[float]):
        looks = 0

        def __getitem__(self, index):  # type: ignore[no-untyped-def]
            Counted.looks += 1
            return super().__getitem__(index)

    program = annealed_langevin(VP, steps=5000)
    text = program_text("title", program.table, Counted(program.conds), program.targets)
    assert text.splitlines()[1:] == str(program).splitlines()[1:]
    assert Counted.looks == 10


@sampler
def halved(spec: ModelSpec, *, steps: int | None = None, clip: bool = True) -> Program:
    """A sampler of one's own: half of the levels by default."""
    steps = len(spec.schedule) // 2 if steps is None else steps
    builder = ProgramBuilder(spec, clip=clip)
    for level, target in transitions(visited(spec.schedule, steps)):
        builder.row(level, target, a=0.0, b=builder.level(target)[0])
    return builder.build({"steps": steps})


def test_a_program_records_the_call_that_made_it() -> None:
    assert halved(VP).call == SamplerCall("halved", {"steps": 500, "clip": True})
    assert halved(VP, clip=False, steps=3).name == "halved(steps=3, clip=False)"


def test_an_argument_that_came_later_is_recorded_if_it_is_not_the_default() -> None:
    assert ddim(VP).name == "ddim(steps=50, eta=0.0, clip=True, raw_epsilon=False)"
    assert ddim(VP, spacing="linspace").call == ddim(VP).call
    assert ddim(VP, spacing="karras").call.arguments["spacing"] == "karras"


def test_a_decided_argument_must_be_one_of_the_samplers() -> None:
    @sampler
    def misspelt(spec: ModelSpec, *, steps: int = 1) -> Program:
        builder = ProgramBuilder(spec, clip=True)
        builder.row(0, None, a=0.0, b=1.0)
        return builder.build({"step": steps})

    with pytest.raises(TypeError, match="misspelt decides 'step'"):
        misspelt(VP)


def test_a_request_changes_a_call_or_takes_its_place() -> None:
    own = SamplerCall("ddim", {"steps": 50, "eta": 0.5})
    assert own.changed_by(SamplerCall()) == own
    changed = SamplerCall("ddim", {"steps": 9, "eta": 0.5})
    assert own.changed_by(SamplerCall("", {"steps": 9})) == changed
    assert own.changed_by(SamplerCall("ddim", {"steps": 9})) == changed
    other = SamplerCall("euler", {"steps": 9})
    assert own.changed_by(other) == other
