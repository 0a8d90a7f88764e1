"""Help, version, errors, exit codes and late imports, which all commands share."""

import json
import os
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy
import pytest
from typer.main import get_command

from difftool import __version__
from difftool.cli.app import app
from difftool.errors import install_hint
from tests.cli.conftest import SHOW_IMPORTS, Command, command

COMMANDS = [
    *(
        "train",
        "distill",
        "export",
        "import",
        "compile",
        "quantize",
        "sample",
        "inspect",
        "verify",
        "bench",
    ),
    *("eval", "extractor", "likelihood", "samplers", "program", "web", "serve", "models", "plot"),
    *("cache", "doctor"),
]
INNER = [
    *("plot scores", "plot trajectory", "plot program", "plot schedule", "plot training"),
    *("cache ls", "cache why", "cache rm"),
]


def test_help_lists_every_command(difftool: Command) -> None:
    done = difftool("--help")
    assert (done.code, done.err) == (0, "")
    assert all(f"\n  {name} " in done.out for name in COMMANDS)
    assert difftool().out == done.out  # a line without words asks for help


@pytest.mark.parametrize("name", [*COMMANDS, *INNER])
def test_every_command_and_option_is_explained(name: str, difftool: Command) -> None:
    *groups, last = name.split()
    command: Any = get_command(app)
    for word in name.split():
        command = command.commands[word]
    assert all(parameter.help for parameter in command.params)
    done = difftool(*groups, last, "--help")
    assert done.code == 0
    listed = difftool(*groups, "--help").out
    assert f"\n    difftool {name}" in (listed if groups else done.out)  # an example
    summary = command.help.partition("\n")[0]
    assert re.search(rf"^  {last} +{re.escape(summary)}$", listed, re.MULTILINE)  # not cut short


@pytest.mark.parametrize("name", [*COMMANDS, *INNER])
def test_every_help_ends_its_options_with_those_of_all(name: str, difftool: Command) -> None:
    text = difftool(*name.split(), "--help").out
    _, _, last = text.partition("\nIn every command:\n")
    flags = re.findall(r"^  (-\S.*?)  ", last.partition("\n\n")[0], re.MULTILINE)
    assert flags == ["--verbose", "--quiet", "--debug", "-h, --help"]


def test_options_stand_in_groups(difftool: Command) -> None:
    """In short ones, so that an option is found among its like."""
    text = difftool("sample", "--help").out
    groups = re.split(r"^([A-Z][\w ]+):$", text.partition("\n  Examples:")[0], flags=re.MULTILINE)
    titles, bodies = groups[1::2], groups[2::2]
    assert titles[:3] == ["Arguments", "Sampler", "Which samples"]
    assert "Options" not in titles
    counts = [len(re.findall(r"^  -", body, re.MULTILINE)) for body in bodies]
    assert max(counts) <= 7
    assert sum(counts) == len(get_command(app).commands["sample"].params) - 1 + 4  # type: ignore[attr-defined]


@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
@pytest.mark.parametrize("flag", ["--verbose", "--quiet", "--debug"])
@pytest.mark.parametrize("name", ["samplers", "cache ls", "plot schedule"])
def test_flags_are_taken_anywhere(flag: str, before: bool, name: str, difftool: Command) -> None:
    words = name.split()
    done = difftool(flag, *words, "--json") if before else difftool(*words, "--json", flag)
    assert done.code == 0, done.err
    json.loads(done.out)


def test_a_word_behind_two_dashes_is_no_flag(difftool: Command) -> None:
    difftool("inspect", "--", "--verbose").refused(3, "--verbose")


def test_quiet_and_verbose_exclude_each_other(difftool: Command) -> None:
    difftool("samplers", "--quiet", "--verbose").refused(2, "--verbose and --quiet are both given")


def test_help_imports_nothing_heavy(spawn: Command) -> None:
    loaded = spawn("--help", setup=SHOW_IMPORTS).err
    assert "'difftool.cli.plot'" in loaded
    for library in ("numpy", "pydantic", "rich", "PIL", "torch", "onnxruntime", "matplotlib"):
        assert f"'{library}'" not in loaded


@pytest.mark.parametrize("line", [["--version", "--verbose"], ["--verbose", "-V"]])
def test_version_with_libraries(line: list[str], difftool: Command) -> None:
    assert difftool("--version").out == difftool("-V").out == f"difftool {__version__}\n"
    done = difftool(*line)
    first, *rest = done.out.splitlines()
    assert (done.code, done.err, first) == (0, "", f"difftool {__version__}")
    found = dict(each.split(maxsplit=1) for each in rest)
    assert found["numpy"] == numpy.__version__
    assert found["onnxruntime"] == metadata.version("onnxruntime")
    assert found["onnxruntime-gpu"] == "not installed"  # which shares its files


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("difftool insp", "inspect"),
        ("difftool sample --st", "--steps --strength"),
        ("difftool cache ls --q", "--quiet"),
        ("difftool sample --sampler ann", "annealed_langevin"),
        ("difftool verify ncsn", "ncsn-mnist"),
        ("difftool bench --backend openv", "openvino"),
    ],
)
def test_a_shell_is_told_how_a_line_goes_on(line: str, answers: str, spawn: Command) -> None:
    words = f"import os; os.environ.update(COMP_WORDS={line!r}, COMP_CWORD='{line.count(' ')}')"
    done = spawn(setup=f"{words}; os.environ['_DIFFTOOL_COMPLETE'] = 'complete_bash'")
    assert (done.code, done.out.split(), done.err) == (0, answers.split(), "")


def test_completion_is_installed(tmp_path: Path) -> None:
    """The shell that runs the command gets it."""
    install = shlex.join(command(["--install-completion"]))
    ask = "source .bashrc; complete -p difftool"
    done = subprocess.run(
        ["bash", "-c", f"{install} && {ask}"],
        env={**os.environ, "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("complete -o default -F _difftool_completion difftool\n")


def test_an_error_is_one_line_and_a_hint(difftool: Command) -> None:
    done = difftool("sample", "nowhere\nat all")
    done.refused(3, "error: no bundle at nowhere at all", "hint: shipped: ")


@pytest.mark.parametrize(
    "line",
    [
        ("sample", "LONG"),
        ("sample", "--out", "LONG.png"),
        ("inspect", "LONG"),
        ("distill", "LONG"),
        ("train", "--resume", "LONG"),
        ("train", "ddpm", "--init", "LONG"),
        ("train", "ddpm", "--config", "LONG"),
        ("eval", "--samples", "LONG.npz", "--against", "gaussians"),
    ],
)
def test_no_name_is_too_long_for_an_error(line: tuple[str, ...], difftool: Command) -> None:
    done = difftool(*(word.replace("LONG", "long " * 999) for word in line))
    assert done.code in (2, 3)
    assert "free space" not in done.err
    assert len(done.err.splitlines()) == 2
    assert len(done.err) < 1000


def test_with_json_an_error_is_also_a_document(difftool: Command) -> None:
    done = difftool("sample", "nowhere", "--json")
    value = json.loads(done.out)
    assert done.err == f"error: {value['error']} [{value['code']}]\nhint: {value['hint']}\n"
    assert value["code"] == "bundle-missing"
    assert value["exit_code"] == done.code == 3


@pytest.mark.parametrize(
    "line", [["--debug", "sample", "nowhere"], ["sample", "nowhere", "--debug"]]
)
def test_a_traceback_appears_with_debug_only(line: list[str], difftool: Command) -> None:
    done = difftool(*line)
    assert done.code == 3
    assert done.err.startswith("Traceback")
    assert done.err.splitlines()[-2].startswith("error: ")
    assert "Traceback" not in difftool("sample", "nowhere").err


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "ncsn", "--config", "recipe.toml"], "train"),
        (["export", "checkpoint", "--out", "bundle"], "export"),
        (["doctor", "nowhere", "--json"], None),
    ],
)
def test_without_torch(
    arguments: list[str], extra: str | None, spawn: Command, tmp_path: Path, toy_recipe: str
) -> None:
    (tmp_path / "recipe.toml").write_text(toy_recipe)
    done = spawn(*arguments, setup="import sys; sys.modules['torch'] = None")
    if extra:
        assert done.code == 4
        assert (
            f"hint: {install_hint(extra)}; without an NVIDIA GPU add --extra-index-url" in done.err
        )
    else:
        assert "torch" not in done.err  # the doctor needs none of it


def test_sampling_without_onnxruntime(
    difftool: Command, points_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = difftool("sample", points_bundle)
    done.refused(4, "onnxruntime is not installed", install_hint("cpu"))


def test_a_reader_that_leaves_is_no_error(points_bundle: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command(["program", points_bundle]), stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_behind_stdout_is_reported() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command(["--version"]), stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 5
    assert done.stderr.startswith("error: [Errno 28] No space left on device\n")
