"""One logger, "difftool": silent in a library, one line a record on the command line."""

import json
import logging
import shutil
from pathlib import Path

import pytest

from difftool.cli import main
from difftool.log import logger
from tests.fresh import python

DRAW = """
import difftool
model = difftool.load("ddpm-mnist", backend="openvino", threads=1)
model.sample(difftool.samplers.ddim(model.spec, steps=2), n=1)
"""
WARN = "import logging; logging.getLogger('difftool.anything').warning('%d of %s', 3, 'it')\n"
SAMPLE = ["sample", "ddpm-mnist", "--sampler", "ddim", "--steps", "10", "-n", "1", "--force"]


def said(code: str) -> tuple[str, str]:
    """Return what `code` prints on stdout and stderr, in an interpreter of its own."""
    done = python("-c", code)
    return done.stdout, done.stderr


def test_a_warning_that_nobody_asked_for_is_not_printed() -> None:
    assert said(f"{DRAW}{WARN}") == ("", "")


def test_an_application_hears_all_of_it() -> None:
    listen = "import logging; logging.basicConfig(format='%(name)s %(levelname)s %(message)s')\n"
    level = "logging.getLogger('difftool').setLevel('DEBUG')\n"
    out, err = said(f"{listen}{level}{DRAW}{WARN}")
    assert out == ""
    assert err.splitlines() == [
        "difftool.runtime.model INFO ddpm-mnist: openvino, fp32, batches of 20",
        "difftool.runtime.backends.openvino DEBUG compiling the step graph for a batch of 1",
        "difftool.anything WARNING 3 of it",
    ]


@pytest.mark.parametrize("line", [["--verbose", *SAMPLE], [*SAMPLE, "--verbose", "--json"]])
def test_the_switch_of_the_command_line(
    line: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(line) == 0
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == "info: ddpm-mnist: onnxruntime-cpu, fp32, batches of 20"
    if "--json" in line:
        assert json.loads(out)["n"] == 1
    assert main([word for word in line if word != "--verbose"]) == 0
    assert capsys.readouterr().err == ""


@pytest.fixture
def half_damaged(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A run whose newest checkpoint cannot be read."""
    run = shutil.copytree(tiny_checkpoint, tmp_path / "run")
    newest = run / "checkpoints" / "step-000000009"
    newest.mkdir()
    (newest / "config.json").write_text("{}")
    return run


def test_a_warning_is_printed_once(half_damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(half_damaged)]) == 0
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: skipping a damaged checkpoint: ")


def test_a_host_that_runs_a_command_keeps_its_own_logging(half_damaged: Path) -> None:
    ours = logger("difftool")
    before = ours.level, ours.propagate, list(ours.handlers), list(logging.root.handlers)
    main(["inspect", str(half_damaged)])
    after = ours.level, ours.propagate, list(ours.handlers), list(logging.root.handlers)
    assert after == before
