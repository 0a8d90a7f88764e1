"""The structure, as only a fresh interpreter and the files themselves can show it.

Who may import whom is checked by import-linter (see pyproject.toml). It reads import
statements; these tests see what is really loaded.
"""

import json
import runpy
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

from tests.fresh import python

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "difftool"
MOST_LINES = 400
PYDANTIC = (
    "pydantic",
    "pydantic_core",
    "annotated_types",
    "typing_extensions",
    "typing_inspection",
)

LIST_MODULES = """
import json, sys
import difftool, difftool.runtime
difftool.load
print(json.dumps(sorted(sys.modules)))
"""

IMPORT_ROOM_WITH_LITTLE = """
import importlib, pkgutil, sys

ALLOWED = sys.stdlib_module_names | {"difftool", *sys.argv[2:]}

class NothingElseInstalled:
    def find_spec(self, name, path, target=None):
        root = name.partition(".")[0]
        if root not in ALLOWED and not root.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"{root} is not in the bare environment", name=root)
        return None

sys.meta_path.insert(0, NothingElseInstalled())
room = importlib.import_module(sys.argv[1])
print(room.__name__)
for module in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
    importlib.import_module(module.name)
    print(module.name)
"""


def module_name(file: Path) -> str:
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def test_loading_the_runtime_loads_no_other_room() -> None:
    loaded = json.loads(python("-c", LIST_MODULES).stdout)
    assert "difftool.runtime" in loaded
    rooms = {
        "difftool.train",
        "difftool.export",
        "difftool.cli",
        "difftool.scale",
        "difftool.serve",
    }
    libraries = {"torch", "onnx", "onnxscript", "ray", "safetensors", "rich", "typer"}
    libraries |= {"starlette", "uvicorn", "sse_starlette", "prometheus_client", "opentelemetry"}
    assert rooms.intersection(loaded) == set()
    assert libraries.intersection(loaded) == set()


@pytest.mark.parametrize(
    ("room", "libraries"),
    [
        ("diffusion", ["numpy"]),
        ("runtime", ["numpy", *PYDANTIC]),
        ("data", ["numpy", "PIL"]),
        ("evaluate", ["numpy", "PIL", *PYDANTIC]),
        ("plot", ["numpy", *PYDANTIC]),
        ("scale", ["numpy", "PIL", *PYDANTIC]),
    ],
)
def test_every_module_imports_with_few_libraries(room: str, libraries: list[str]) -> None:
    """A backend's library is first imported when that backend is asked for."""
    done = python("-c", IMPORT_ROOM_WITH_LITTLE, f"difftool.{room}", *libraries)
    assert set(done.stdout.split()) == {module_name(file) for file in (SOURCE / room).rglob("*.py")}


def test_no_files_import_each_other_in_a_circle() -> None:
    """Not even inside of functions, or for type checkers alone."""
    graph = grimp.build_graph("difftool", cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert len(imports) > 200
    TopologicalSorter(imports).prepare()  # CycleError names a circle


def test_the_picture_of_the_rooms_is_drawn_from_their_imports() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "rooms.py"))
    drawn = (ROOT / "docs" / "images" / "rooms.svg").read_text(encoding="utf-8")
    assert drawn == script["draw"](), "draw it again: python docs/rooms.py"


def test_files_are_short_enough_to_hold_one_idea() -> None:
    lengths = {
        str(file.relative_to(SOURCE)): len(file.read_text(encoding="utf-8").splitlines())
        for file in SOURCE.rglob("*.py")
    }
    assert lengths
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}
