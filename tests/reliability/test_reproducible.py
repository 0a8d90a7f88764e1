"""The same command on the same files writes the same bytes, in any process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import tree
from tests.places import IMPORT, furnish

GROUPS = {
    "from weights": ("export points --out points.bundle --torchscript", f"{IMPORT} --out imported"),
    "from a bundle": (
        "quantize images.bundle --sampler ddim --steps 4 --out int8.bundle",
        "sample int8.bundle -n 2 --precision int8 --out samples.npz",
        "compile images.bundle --portable --out sampler.onnx",
        "web images.bundle --runtime dist --out site",
        "program images.bundle --out program.json",
    ),
}
# What `compile --trt` makes of step.onnx before TensorRT sees it.
PRECISIONS = ("fp16", "bf16", "int8", "fp8")

# Beside the hash seed, which sets go by, two processes differ in their threads and their clock.
WRITE = f"""
import os, sys, time

threads, lines = int(sys.argv[1]), sys.argv[2:]
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
counter = time.perf_counter
time.perf_counter = lambda: threads * counter()

from pathlib import Path
from difftool.bundle import read_bundle
from difftool.cli import main
from difftool.compile.quantization import bundle, calibration
from difftool.compile.engine.compile import step_graph

for module in (bundle, calibration):
    module.threads_for = lambda size: threads
for line in lines:
    assert main(line.split()) == 0, line
for precision in {PRECISIONS!r}:
    graph = step_graph(read_bundle("images.bundle"), precision)
    Path(precision + ".onnx").write_bytes(graph.SerializeToString())
"""


def written(folder: Path, threads: int, lines: tuple[str, ...]) -> dict[str, bytes]:
    """Return all that is in `folder` after a process has run the lines there."""
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(threads), *lines],
        cwd=folder,
        env={**os.environ, "PYTHONHASHSEED": str(threads), "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {str(Path(name).relative_to(folder)): data for name, data in tree(folder).items()}


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, to choose a process's cores")
@pytest.mark.parametrize("lines", GROUPS.values(), ids=GROUPS)
def test_two_processes_write_the_same_bytes(
    lines: tuple[str, ...], tmp_path: Path, tiny_bundle: Path, points_checkpoint: Path
) -> None:
    copies = {"images.bundle": tiny_bundle, "points": points_checkpoint}
    shutil.copytree(furnish(tmp_path / "1", copies), tmp_path / "2")
    first, second = (written(tmp_path / str(threads), threads, lines) for threads in (1, 2))
    differing = {name for name in first | second if first.get(name) != second.get(name)}
    assert not differing, f"of {len(first)} files these differ: {sorted(differing)}"
