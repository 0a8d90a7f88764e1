"""The runtime is alone: it opens no connection and writes nothing but what it was told to."""

import ast
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import difftool
from tests.reliability import traced

SOURCE = Path(difftool.__file__).parent
# Libraries that report to their makers -> the one file that may import them.
REPORTING = {"onnxruntime": "alone.py", "openvino": "alone.py", "datasets": "data/tables.py"}
SAMPLE = "from difftool.cli import main; assert main('{line}'.split()) == 0"
LINES = {
    "onnxruntime-cpu": "sample images.bundle --backend onnxruntime-cpu -n 1 --out samples.png",
    "openvino": "sample images.bundle --backend openvino -n 1 --out samples.npz",
}


@pytest.fixture
def place(tmp_path: Path, tiny_bundle: Path) -> Path:
    """A folder with a bundle, and one of pictures."""
    place = tmp_path / "place"
    shutil.copytree(tiny_bundle, place / "images.bundle")
    (place / "pictures").mkdir()
    for index in range(2):
        Image.fromarray(np.full((8, 8), index, np.uint8)).save(place / f"pictures/{index}.png")
    return place


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_sampling_opens_no_socket_and_writes_its_output_alone(line: str, place: Path) -> None:
    seen = traced.run(SAMPLE.format(line=line), place)
    assert seen.sockets == []
    assert seen.outside(place) == set()
    written = {path.name.strip(".").partition(".")[0] for path in seen.written}
    assert written == {"samples"}  # under its temporary name, too


def test_the_libraries_are_imported_without_a_trace(place: Path) -> None:
    code = "import difftool.alone as a; a.onnx_runtime(); a.onnx_quantization(); a.open_vino()"
    code += "; import openvino_telemetry"  # which a host program may use afterwards
    assert traced.run(code, place) == traced.Traced([], set())


def test_pictures_of_this_machine_are_read_without_the_network(place: Path) -> None:
    code = """
from difftool import data
assert len(data.load("pictures").values) == 2
"""
    seen = traced.run(code, place)
    assert [line for line in seen.sockets if "AF_INET" in line] == []


@pytest.mark.parametrize("name", REPORTING)
def test_a_library_that_is_just_imported_is_seen(name: str, place: Path) -> None:
    if name == "datasets":
        code = "import datasets; datasets.load_dataset('imagefolder', data_dir='pictures')"
    else:
        code = f"import {name}"
    seen = traced.run(code, place)
    assert seen.outside(place)
    assert name == "onnxruntime" or [line for line in seen.sockets if "AF_INET" in line]


def test_no_other_file_imports_them() -> None:
    found = {
        (name, str(file.relative_to(SOURCE)))
        for file in SOURCE.rglob("*.py")
        for name in imported(ast.parse(file.read_text(encoding="utf-8")))
    }
    assert {pair for pair in found if pair[0] in REPORTING} == set(REPORTING.items())


def imported(tree: ast.Module) -> set[str]:
    """The libraries that a file imports anywhere in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}
