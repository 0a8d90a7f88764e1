"""Pack what a machine without a network needs: wheels, models and the source, in pieces."""

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from common.machine import ROOT, version

from difftool.errors import DifftoolError, MissingDependencyError, UsageError, first_line
from difftool.files import write_atomic
from gpu.engine import build_engine

MODELS = ("cifar10", "ddpm-mnist", "ncsn-mnist")
EXTRAS = ("gpu", "trt-rtx", "compile", "test")  # beside what difftool itself requires
PLATFORMS = tuple(f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 26, 24, 17, 12, 5))
# TensorRT for RTX is published as two sources for any Python, and two wheels.
RTX_SOURCES = ("tensorrt-rtx", "tensorrt-rtx-cu13")
RTX_WHEELS = ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs")
_UNITS = {"K": 10**3, "M": 10**6, "G": 10**9}

UNPACK = """\
#!/bin/sh
# Join the pieces beside this script, check them, and install what they hold, without a network.
#
#     sh unpack.sh [FOLDER]
#
# PyTorch is used if this machine has it: the environment sees what is installed outside.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
into=${1:-.}
(cd "$here" && sha256sum --check --quiet pieces.sha256)
mkdir -p "$into"
cat "$here"/piece.* | tar -x -C "$into"
cd "$into/difftool-gpu"
python3 -m venv --system-site-packages env
for wheel in wheels/*.whl; do
    env/bin/python -m pip install --quiet --no-index --no-deps "$wheel" || echo "not: $wheel"
done
site=$(env/bin/python -c 'import site; print(site.getsitepackages()[0])')
echo "$PWD/source/src" > "$site/difftool.pth"
echo "cd $PWD/source && ../env/bin/python benchmarks/gpu.py run --models ../models --out ../results"
"""

Call = Callable[[Sequence[str]], object]


def pack(options: Namespace, call: Call | None = None) -> int:
    """Write pieces of at most `--piece` bytes and unpack.sh to `--out`; an older pack is replaced.

    `call` runs a command of pip or git.
    """
    call = call or _run
    if options.out is None:
        raise UsageError("nowhere to write", "give a folder: --out")
    piece = parse_size(options.piece)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "difftool-gpu")
        print("gpu: downloading wheels", file=sys.stderr)
        pip = [sys.executable, "-m", "pip"]
        call([*pip, "download", *wheels(options, root / "wheels")])
        call([*pip, "wheel", "--no-deps", "--wheel-dir", str(root / "wheels"), *rtx(RTX_SOURCES)])
        call(["git", "-C", str(ROOT), "archive", "--output", f"{folder}/source.tar", "HEAD"])
        with tarfile.open(f"{folder}/source.tar") as source:
            source.extractall(root / "source", filter="data")
        print("gpu: exporting models", file=sys.stderr)
        models(root / "models", options.work)
        options.out.mkdir(parents=True, exist_ok=True)
        for old in options.out.glob("piece.*"):
            old.unlink()
        pieces = Pieces(options.out, piece)
        with tarfile.open(fileobj=pieces, mode="w|") as joined:
            joined.add(root, root.name)
        pieces.close()
    write_atomic(options.out / "unpack.sh", UNPACK.encode())
    names = [path.name for path in sorted(options.out.glob("piece.*"))]
    print(f"gpu: wrote {len(names)} pieces and unpack.sh to {options.out}", file=sys.stderr)
    return 0


def wheels(options: Namespace, folder: Path) -> list[str]:
    """Give the arguments of `pip download`."""
    platforms = options.platform or PLATFORMS
    return [
        *("--dest", str(folder), "--only-binary=:all:"),
        *("--implementation", "cp", "--python-version", options.python),
        *(f"--platform={platform}" for platform in platforms),
        *(line for line in requirements() if not line.startswith(RTX_SOURCES)),
        *rtx(RTX_WHEELS),
        *options.package,
    ]


def rtx(names: Iterable[str]) -> list[str]:
    """Pin packages of TensorRT for RTX to the installed version, which builds the engine."""
    installed = version(RTX_SOURCES[0])
    return [f"{name}=={installed}" if installed else name for name in names]


def requirements(extras: Iterable[str] = EXTRAS) -> list[str]:
    """List what difftool and these extras require, in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = list(project["dependencies"])
    for extra in extras:
        for line in project["optional-dependencies"][extra]:
            if line.startswith("difftool["):
                found += requirements(line[len("difftool[") : line.index("]")].split(","))
            else:
                found.append(line)
    return list(dict.fromkeys(found))


def models(folder: Path, work: Path) -> None:
    """Export the models, each with its checkpoint, and build the engine of another GPU."""
    from common.models import CASES, prepare

    for name in MODELS:
        prepared = prepare(CASES[name], work, torchscript=True)
        shutil.copytree(prepared.bundle.path, folder / name / "bundle")
        shutil.copytree(prepared.checkpoint.path, folder / name / "checkpoint")
    try:
        build_engine(folder)
    except DifftoolError as error:
        print(f"gpu: no engine: {error.message}", file=sys.stderr)


class Pieces(io.RawIOBase):
    """A file that goes on in another one when it is full, and notes the digest of each."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size = folder, size
        self._data = bytearray()
        self._digests: list[str] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._data += data
        while len(self._data) >= self._size:
            self._flush_piece(self._size)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._flush_piece(len(self._data))
            write_atomic(self._folder / "pieces.sha256", "".join(self._digests).encode())
        super().close()

    def _flush_piece(self, size: int) -> None:
        data, name = bytes(self._data[:size]), f"piece.{len(self._digests):04d}"
        if data:
            (self._folder / name).write_bytes(data)
            self._digests.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
            del self._data[:size]


def parse_size(text: str) -> int:
    """Read a size such as 45M."""
    number, unit = text[:-1], text[-1:].upper()
    if unit not in _UNITS or not number.isdecimal() or not int(number):
        raise UsageError(f"{text!r} is no size", "use a number and a unit: 45M")
    return int(number) * _UNITS[unit]


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        what = f"{' '.join(command[:4])} failed: {first_line(error)}"
        raise MissingDependencyError(what, "its own lines above say why") from error
