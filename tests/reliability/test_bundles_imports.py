"""B4: the runtime reaches no library that would run what a file says, and runs nothing itself."""

import shutil
from pathlib import Path

import pytest

import difftool
from tests.fresh import python

SOURCE = Path(difftool.__file__).parent
FORBIDDEN = ("torch", "onnx", "onnxscript", "pickle", "marshal", "dill", "cloudpickle", "joblib")
# The one file that imports torch, for those who name its backend.
ALLOWED = (
    ("difftool.runtime.backends.torchscript", "torch"),
    ("difftool.runtime.backends.code", "torch"),
)

# numpy itself imports pickle, and the interpreter marshal: for these two it is what they do that
# counts. The interpreter reports that to an audit hook; imports are done by the second run.
LOAD_AND_SAMPLE = f"""
import sys
import difftool

def run():
    model = difftool.load(sys.argv[1], backend="onnxruntime-cpu", threads=1)
    model.sample(n=2)

run()
seen = []
watched = ("pickle.", "marshal.", "exec", "compile", "subprocess.", "os.system", "os.exec",
           "socket.", "ctypes.dlopen")
sys.addaudithook(lambda event, _: seen.append(event) if event.startswith(watched) else None)
run()
loaded = [name for name in {FORBIDDEN} if name in sys.modules and name not in ("pickle", "marshal")]
print(*loaded, *seen)
"""


def check_imports(source: Path) -> None:
    """AssertionError if a module of `source`, the package, imports what it must not."""
    code = f"""
import sys
sys.path.insert(0, {str(source.parent)!r})
import grimp
graph = grimp.build_graph("difftool", include_external_packages=True, cache_dir=None)
assert len(graph.modules) > 200, "it is not the package that is looked at"
for importer, imported in {ALLOWED!r}:
    if graph.find_matching_modules(importer):
        graph.remove_import(importer=importer, imported=imported)
for name in {FORBIDDEN!r}:
    if name in graph.modules:
        for chain in graph.find_shortest_chains("difftool.runtime", name):
            print(" -> ".join(chain))
"""
    found = printed(code)
    assert not found, f"the runtime reaches: {found}"


def check_loaded(bundle: Path, before: str = "") -> None:
    """AssertionError if loading and sampling a bundle loads one, or runs code."""
    found = printed(before + LOAD_AND_SAMPLE, bundle)
    assert not found, f"loading a bundle uses: {found}"


def printed(code: str, *arguments: object) -> str:
    done = python("-c", code, *arguments)
    assert not done.stderr, done.stderr
    return done.stdout.strip()


@pytest.mark.criterion("B4")
def test_no_import_leads_to_what_runs_code() -> None:
    check_imports(SOURCE)


@pytest.mark.criterion("B4")
def test_loading_a_bundle_loads_and_runs_nothing_of_the_kind(tiny_bundle: Path) -> None:
    check_loaded(tiny_bundle)


@pytest.mark.seeded("B4")
def test_imports_are_seen(tmp_path: Path) -> None:
    copy = tmp_path / "difftool"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("*.onnx", "__pycache__"))
    names = ("pickle", "onnx", "torch", "marshal")
    with open(copy / "runtime" / "loop.py", "a") as file:
        file.write(f"\nimport {', '.join(names)}\n")
    with pytest.raises(AssertionError) as caught:
        check_imports(copy)
    for name in names:
        assert f"difftool.runtime.loop -> {name}\n" in f"{caught.value}\n"


@pytest.mark.seeded("B4")
@pytest.mark.parametrize(
    ("uses", "seen"),
    [
        ("import onnx", "uses: onnx "),
        ("import pickle; pickle.loads(pickle.dumps(int))", r"pickle\.find_class"),
        ("import marshal; marshal.loads(marshal.dumps(1))", r"marshal\.loads"),
    ],
)
def test_what_is_loaded_or_run_is_seen(uses: str, seen: str, tiny_bundle: Path) -> None:
    defect = f"""
import difftool.runtime.shipped as m
def with_defect(path, *, limits=None, read=m.read_bundle):
    exec({uses!r})
    return read(path, limits=limits)
m.read_bundle = with_defect
"""
    with pytest.raises(AssertionError, match=seen):
        check_loaded(tiny_bundle, defect)
