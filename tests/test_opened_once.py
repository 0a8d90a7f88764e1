"""A command reads and judges each ONNX file of its bundle once, and runs the bytes it judged."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import difftool.bundle as bundle_format
from difftool.cli import main
from difftool.preflight import Graph


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each ONNX file is read and judged, by its path."""
    read_graph, seen = bundle_format.read_graph, Counter[str]()

    def counted(data: bytes, name: str, **options: Any) -> Graph:
        seen[name] += 1
        return read_graph(data, name, **options)

    monkeypatch.setattr(bundle_format, "read_graph", counted)
    return seen


@pytest.mark.parametrize(
    "line",
    [
        "sample {bundle} -n 2 --steps 2 --out {out}.npy",
        "verify {bundle} --backend numpy --against onnxruntime-cpu --steps 2",
        "compile {bundle} --portable --out {out}.onnx",
    ],
)
def test_a_command_opens_each_file_of_its_bundle_once(
    line: str, tiny_bundle: Path, tmp_path: Path, judged: Counter[str]
) -> None:
    assert main(line.format(bundle=tiny_bundle, out=tmp_path / "out").split()) == 0
    files = tiny_bundle / "step.onnx", tiny_bundle / "conditioner.onnx"
    assert judged == {str(file): 1 for file in files}


def test_int8_is_made_and_compared_by_opening_each_file_once(
    classes_bundle: Path, tmp_path: Path, judged: Counter[str]
) -> None:
    quantized = tmp_path / "int8"
    assert main(f"quantize {classes_bundle} --out {quantized}".split()) == 0
    names = ("step.onnx", "conditioner.onnx")
    copied = {path for path in judged if Path(path).parent != classes_bundle}
    assert {*judged} - copied == {str(classes_bundle / name) for name in names}
    assert {Path(path).name for path in copied} == {"step.int8.onnx", "conditioner.onnx"}
    assert dict.fromkeys(judged, 1) == judged
    judged.clear()
    line = f"verify {quantized} --backend onnxruntime-cpu --precision int8 --bisect --steps 2"
    assert main(line.split()) in (0, 1)
    names = (*names, "step.int8.onnx")
    assert judged == {str(quantized / name): 1 for name in names}
