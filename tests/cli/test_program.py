"""difftool program: the table, its proof and its file."""

from pathlib import Path

import pytest

from difftool.bundle import read_bundle
from difftool.diffusion import invariant
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import ddim
from tests.cli.conftest import Command

LINE = ("--sampler", "ddim", "--steps", 6, "--eta", 0.25)


def test_prints_the_table_and_the_proof(difftool: Command, tiny_bundle: Path) -> None:
    done = difftool("program", tiny_bundle, *LINE)
    assert done.code == 0
    assert done.err == (
        "warning: with so few steps, 6, each divides the noise by 3.2; take 7 or more\n"
    )
    assert difftool("program", tiny_bundle, *LINE, "--quiet").err == ""
    expected = str(ddim(read_bundle(tiny_bundle).spec, steps=6, eta=0.25))
    assert done.out.startswith(expected + "\nerror of the signal: ")


def test_figures_say_what_they_mean(difftool: Command, tiny_bundle: Path) -> None:
    exact = difftool("program", tiny_bundle, "--sampler", "ddim").out.splitlines()[-2:]
    assert all(line.endswith("; rounding may reach 1e-12, so it is exact") for line in exact)
    large = difftool("program", tiny_bundle, "--arg", "variance=large").out.splitlines()[-1]
    assert "not held to that, since this sampler adds other noise" in large


def test_saves_every_bit(difftool: Command, tiny_bundle: Path, tmp_path: Path) -> None:
    assert difftool("program", tiny_bundle, *LINE, "--out", "program.json").code == 0
    saved = Program.load(tmp_path / "program.json")
    expected = ddim(read_bundle(tiny_bundle).spec, steps=6, eta=0.25)
    assert saved.to_dict() == expected.to_dict()


def test_json_is_the_program_and_its_proof(difftool: Command, tiny_bundle: Path) -> None:
    value = difftool("program", tiny_bundle, *LINE, "--json").json()
    proof, warnings = value.pop("proof"), value.pop("warnings")
    assert len(warnings) == 1
    assert value == ddim(read_bundle(tiny_bundle).spec, steps=6, eta=0.25).to_dict()
    assert max(proof["signal_error"], proof["noise_error"]) < 1e-12


def test_a_wrong_table_fails(
    difftool: Command, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invariant, "TOLERANCE", -1.0)  # now no table is exact enough
    difftool("program", tiny_bundle, "--out", "program.json").refused(1, "misses its noise level")
    assert not (tmp_path / "program.json").exists()
