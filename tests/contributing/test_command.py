"""A command is one new file, and one line with its import."""

import json
from pathlib import Path

import pytest

from tests.contributing.conftest import NAME, Project, listed

COMMAND = '''
"""difftool mine: how many noise levels a model has."""

from difftool.cli import options
from difftool.cli.console import report

EXAMPLES = """\\b
Examples:
  difftool mine
  difftool mine ncsn-mnist --json
"""


def mine(model: options.Model = options.DEFAULT_MODEL, json: options.Json = False) -> None:
    """Count a model's noise levels."""
    from difftool.runtime import open_bundle

    spec = open_bundle(model).spec
    report({"model": model, "levels": len(spec.schedule)}, as_json=json)
'''

TEST = '''
"""difftool mine: what it counts."""

from tests.cli.conftest import Command


def test_levels(difftool: Command) -> None:
    done = difftool("mine", "ncsn-mnist")
    assert (done.code, done.out.split()) == (0, ["model", "ncsn-mnist", "levels", "95"])
'''

LIST = "src/difftool/cli/app.py"
(ALL,) = (file for file in listed("A command") if file.startswith("tests/") and NAME not in file)


@pytest.fixture(scope="module")
def command(project: Project) -> Project:
    project.write("src/difftool/cli/mine.py", COMMAND)
    project.insert(LIST, after="likelihood,", lines="    mine,\n")
    line = "app.command(cls=Command, epilog=mine.EXAMPLES)(mine.mine)\n"
    project.insert(LIST, after="app.command(cls=Command, epilog=models.EXAMPLES)", lines=line)
    project.insert(ALL, after="COMMANDS = ", lines='    "mine",\n')
    project.write("tests/cli/test_mine.py", TEST)
    line = "| count | `difftool mine ncsn-mnist` | how many noise levels a model has |\n"
    project.insert("README.md", after="| look |", lines=line)
    project.python("docs/commands.py")
    return project


def test_the_list_names_all_files(command: Project) -> None:
    assert command.changed() == listed("A command")
    assert len(command.added(LIST)) == 2


def test_commands_find_it(command: Project, tmp_path: Path) -> None:
    said = command.difftool(tmp_path, "--help", "mine --json")
    assert "\n  mine        Count a model's noise levels.\n" in said
    assert json.loads(said[said.index("\n{") :]) == {"model": "ddpm-mnist", "levels": 1000}


def test_tests_find_it(command: Project) -> None:
    command.test(ALL, "tests/cli/test_mine.py", "-k", "mine or lists_every_command")
