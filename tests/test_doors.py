"""A room's door lists what others may use, says all of it, and is the way that others take."""

import ast
import doctest
import inspect
import runpy
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import difftool
from tests.places import furnish

ROOT = Path(__file__).resolve().parents[1]
API = runpy.run_path(str(ROOT / "docs" / "api.py"))
DOORS: tuple[str, ...] = API["DOORS"]
VERBS = (
    difftool.load,
    difftool.train.train,
    difftool.train.train_extractor,
    difftool.train.measure_likelihood,
    difftool.importers.import_checkpoint,
    difftool.export.export,
    difftool.export.export_extractor,
    difftool.compile.quantize,
    difftool.compile.tensorrt,
    difftool.compile.portable,
    difftool.compile.web,
    difftool.verify.verify,
    difftool.evaluate.evaluate,
    difftool.scale.sample,
)
# Rooms of one file, or whose `__init__` holds the room itself.
OTHERS = {"alone", "bundle", "checkpoint", "errors", "files", "outputs", "preflight"}


def public(door: str) -> list[tuple[str, Any]]:
    module = import_module(door)
    return [(name, getattr(module, name)) for name in module.__all__]


@pytest.mark.parametrize("door", DOORS)
def test_a_door_gives_and_documents_all_that_it_lists(door: str) -> None:
    for name, value in public(door):
        if inspect.isclass(value) or inspect.isfunction(value) or inspect.ismodule(value):
            assert inspect.getdoc(value), f"{door}.{name} says nothing of itself"


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__qualname__)
def test_a_verb_says_its_arguments_errors_and_an_example(verb: Any) -> None:
    text = inspect.getdoc(verb) or ""
    for section in ("Args:", "Raises:", "Examples:"):
        assert section in text, f"{verb.__qualname__} has no {section}"
    for name in inspect.signature(verb).parameters:
        assert f"`{name}`" in text or f"\n    {name}:" in text, f"{verb.__qualname__}: {name}"


def test_the_pages_are_those_of_the_docstrings() -> None:
    written = {file.name: file.read_text(encoding="utf-8") for file in API["FOLDER"].glob("*.md")}
    assert written == API["pages"](), "write them again: python docs/api.py"


def test_each_name_on_a_page_has_a_sentence() -> None:
    for file in API["FOLDER"].glob("difftool*.md"):
        for line in file.read_text(encoding="utf-8").splitlines():
            assert not line.endswith("): "), f"{file.name}: {line}"


def imports(file: Path) -> Iterator[tuple[str, str]]:
    """The names that a file imports of difftool, each with its module."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "difftool":
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if "difftool." in alias.name)


@pytest.mark.parametrize("folder", ["src/difftool/cli", "examples", "docs", "benchmarks"])
def test_commands_and_examples_go_through_doors(folder: str) -> None:
    modules = {  # a module that a door lists is a door itself
        value.__name__ for door in DOORS for _, value in public(door) if inspect.ismodule(value)
    }
    allowed = {*DOORS, *modules, *(f"difftool.{room}" for room in OTHERS), "difftool.cli"}
    for file in (ROOT / folder).rglob("*.py"):
        # What benchmarks measure on its own has no door; they name all of it in these files.
        if "node_modules" in file.parts or file.name.startswith("inside"):
            continue
        for module, name in imports(file):
            known = module in allowed or module.startswith("difftool.cli.")
            assert known, f"{file.name} imports {name} from {module}, behind a door"


@pytest.fixture
def workplace(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_checkpoint: Path,
    tiny_bundle: Path,
) -> Path:
    """A folder with the files that the examples name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIFFTOOL_CACHE", str(tmp_path / "cache"))
    furnish(tmp_path, {"runs/digits": tiny_checkpoint, "digits.bundle": tiny_bundle})
    (tmp_path / "dist").rename(tmp_path / "node_modules")
    return tmp_path


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__qualname__)
def test_an_example_runs_and_prints_what_it_says(verb: Any) -> None:
    if verb is difftool.compile.tensorrt:
        pytest.importorskip("tensorrt_rtx")
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(verb, verb.__qualname__, globs={"difftool": difftool})
    assert example.examples
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(example).failed == 0
