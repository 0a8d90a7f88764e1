"""The runtime is alone: it opens no connection and writes nothing but what it was told to."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grimp
import numpy as np
import pytest
from PIL import Image

# Libraries that report to their makers -> the one module that may import them.
REPORTING = {
    "onnxruntime": "difftool.alone",
    "openvino": "difftool.alone",
    "datasets": "difftool.data.tables",
}
IMPORTED_THERE = {**REPORTING, "ray": "difftool.alone"}  # Ray reports once it has started a cluster
SAMPLE = "from difftool.cli import main; assert main('{line}'.split()) == 0"
LINES = {
    "onnxruntime-cpu": "sample images.bundle --backend onnxruntime-cpu -n 1 --out samples.png",
    "openvino": "sample images.bundle --backend openvino -n 1 --out samples.npz",
}
_FILES: Final = (
    *("open", "openat", "creat", "mkdir", "mkdirat", "mknod", "mknodat"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    *("truncate", "unlink", "unlinkat", "rmdir"),
)
# One call of a process, up to its first path.
_CALL: Final = re.compile(r'\d+ +(\w+)\((?:(?:AT_FDCWD|-?\d+), )?(?:"([^"]*)")?(.*)')
_READS: Final = ("open", "openat")
_WRITING: Final = re.compile(r"O_(WRONLY|RDWR|CREAT)")
_HARMLESS: Final = ("/dev/null", "/dev/tty")
# What the libraries take for a machine that tests, on which they do not report.
_QUIET: Final = re.compile(r"CI|.*(_ACTIONS|_CI|_BUILD.*)|ORT_.*|HF_.*|TRAVIS|JENKINS.*|TF_BUILD")


@dataclass(frozen=True)
class Traced:
    """The calls that open or use sockets, and the paths that were made, written to or deleted."""

    sockets: list[str]
    written: set[Path]

    def outside(self, folder: Path) -> set[Path]:
        """Return what was written outside of a folder."""
        return {path for path in self.written if not path.is_relative_to(folder)}


def traced(code: str, folder: Path) -> Traced:
    """Run Python code in `folder`, with a home and a folder for temporary files that are empty.

    Skips the test if there is no strace, but not on CI.
    """
    strace = shutil.which("strace")
    if strace is None:
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent("needs strace")
    around = folder.parent / f"{folder.name}.around"
    homes = {name: str(around / name.lower()) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    for home in homes.values():
        Path(home).mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if not _QUIET.fullmatch(name)}
    trace, calls = around / "trace", ",".join(("%network", *_FILES))
    words = [strace, "-f", "-qq", "-s", "4096", "-e", f"trace={calls}"]
    command = [*words, "-o", str(trace), sys.executable, "-c", code]
    env = {**kept, **homes, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return read(trace.read_text(), folder)


def read(trace: str, folder: Path) -> Traced:
    sockets, written = [], set()
    for line in trace.splitlines():
        call = _CALL.match(line)
        if call is None:  # the end of a call whose begin was seen, or a signal
            continue
        name, path, rest = call.groups()
        if name not in _FILES:
            sockets.append(line)
        elif (name not in _READS or _WRITING.search(rest)) and path not in _HARMLESS:
            written.add(Path(os.path.normpath(folder / path)))
    return Traced(sockets, written)


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
    seen = traced(SAMPLE.format(line=line), place)
    assert seen.sockets == []
    assert seen.outside(place) == set()
    written = {path.name.strip(".").partition(".")[0] for path in seen.written}
    assert written == {"samples"}  # under its temporary name, too


def test_the_libraries_are_imported_without_a_trace(place: Path) -> None:
    code = "import difftool.alone as a; a.onnx_runtime(); a.onnx_quantization(); a.open_vino()"
    code += "; import openvino_telemetry"  # which a host program may use afterwards
    assert traced(code, place) == Traced([], set())


def test_pictures_of_this_machine_are_read_without_the_network(place: Path) -> None:
    code = """
from difftool import data
assert len(data.load("pictures").values) == 2
"""
    seen = traced(code, place)
    assert [line for line in seen.sockets if "AF_INET" in line] == []


@pytest.mark.parametrize("name", REPORTING)
def test_a_library_that_is_just_imported_is_seen(name: str, place: Path) -> None:
    if name == "datasets":
        code = "import datasets; datasets.load_dataset('imagefolder', data_dir='pictures')"
    else:
        code = f"import {name}"
    seen = traced(code, place)
    assert seen.outside(place)
    assert name == "onnxruntime" or [line for line in seen.sockets if "AF_INET" in line]


def test_no_other_file_imports_them() -> None:
    graph = grimp.build_graph("difftool", include_external_packages=True, cache_dir=None)
    found = {name: graph.find_modules_that_directly_import(name) for name in IMPORTED_THERE}
    assert found == {name: {module} for name, module in IMPORTED_THERE.items()}
