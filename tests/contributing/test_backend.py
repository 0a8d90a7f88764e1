"""A backend is one new file and one row; tests/runtime/test_table.py has one of another package."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.contributing.conftest import Project, listed

BACKEND = '''
"""ONNX Runtime on the CPU, by its plainest call."""

from collections.abc import Callable
from functools import partial
from typing import Any

from difftool.bundle import Bundle
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.runtime.backends.host import Arrays, HostBatch
from difftool.runtime.backends.prepare import Preparation
from difftool.runtime.backends.sessions import cpu_session
from difftool.runtime.backends.table import Asked


class Mine:
    """Runs `step.onnx`."""

    name = "mine"

    def __init__(self, bundle: Bundle, threads: int | None) -> None:
        step = bundle.step("fp32")
        self._prepare = Preparation(bundle, step)
        self.features = self._prepare.features
        self._step = cpu_session(step.data, step.path, threads)

    def batch(self, program: Program, size: int, labels: Labels | None = None) -> HostBatch:
        """Room for `size` samples of a program."""
        begin = self._prepare(program, size, labels)
        taken = {node.name for node in self._step.get_inputs()}
        return HostBatch(partial(_bind, self._step), taken, begin)


def open_asked(bundle: Bundle, asked: Asked) -> Mine:
    """The opener of the table's row."""
    return Mine(bundle, asked.threads)


def _bind(session: Any, inputs: Arrays, outputs: Arrays) -> Callable[[], None]:
    def run() -> None:
        for name, value in zip(outputs, session.run(list(outputs), dict(inputs)), strict=True):
            outputs[name][...] = value

    return run
'''

ROW = """    BackendEntry(
        name="mine", opener="difftool.runtime.backends.mine:open_asked", packages=_CPU
    ),
"""

TABLE = "src/difftool/runtime/backends/table.py"


@pytest.fixture(scope="module")
def backend(project: Project) -> Project:
    project.write("src/difftool/runtime/backends/mine.py", BACKEND)
    project.insert(TABLE, after="BACKENDS: Final = (", lines=ROW)
    project.replace("tests/reliability/backends.py", '"torchscript")\n', '"torchscript", "mine")\n')
    line = "| `mine` | `step.onnx`, by ONNX Runtime's plainest call | `difftool[cpu]` |\n"
    project.insert("docs/gpu.md", after="| `torchscript` |", lines=line)
    return project


def test_the_list_names_all_files(backend: Project) -> None:
    assert backend.changed() == listed("A backend")
    assert backend.added(TABLE) == [line.strip() for line in ROW.splitlines()]


def test_commands_find_it(backend: Project, tmp_path: Path) -> None:
    line = "sample ddpm-mnist --steps 3 -n 2 --threads 1"
    said = backend.difftool(
        tmp_path,
        f"{line} --backend onnxruntime-cpu --out expected.npy",
        f"{line} --backend mine --out drawn.npy",
        "doctor --json",
    )
    assert np.array_equal(np.load(tmp_path / "drawn.npy"), np.load(tmp_path / "expected.npy"))
    found = json.loads(said[said.index("\n{") :])
    assert found["backends"]["mine"]["state"] == "works"
    assert found["chosen"] == "onnxruntime-cpu"  # the new one is taken by name only


def test_tests_find_it(backend: Project) -> None:
    """Those that compare backends are only collected: they take long."""
    backend.test("tests/runtime/test_table.py", "-k", "every_file or automatic")
    said = backend.test("tests/reliability/test_determinism_batches.py", "--collect-only")
    assert "::test_neighbours_and_slots[mine]" in said
