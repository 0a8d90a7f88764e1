"""B2: one changed byte, in whatever file of a bundle, is found before anything is run."""

import hashlib
import random
import shutil
from pathlib import Path

import pytest

from difftool import bundle as bundle_format
from difftool.bundle import MANIFEST, file_entries, read_bundle, write_manifest
from difftool.errors import ArtefactError
from difftool.files import read_json
from difftool.runtime.shipped import find_bundle
from tests.reliability.criteria import Cases

MIB = 1 << 20
POSITIONS = {False: 50, True: 5000}  # of each graph; in the manifest there are fewer


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A model whose step graph has more than one MiB."""
    copied = Path(shutil.copytree(find_bundle("ddpm-mnist"), tmp_path / "bundle"))
    assert (copied / "step.onnx").stat().st_size > 2 * MIB
    return copied


def check(path: Path, position: int, change: int) -> None:
    """AssertionError if the bundle is read with one byte of a file changed."""
    with open(path, "r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ change]))
    try:
        read_bundle(path.parent)
        refusal = ""
    except ArtefactError as error:
        refusal = error.code
    finally:
        with open(path, "r+b") as file:
            file.seek(position)
            file.write(bytes([byte]))
    assert refusal, f"byte {position} of {path.name} may change by {change}"


def positions(size: int, count: int, rng: random.Random) -> list[int]:
    """Return both ends, both sides of whole MiBs, and others at random."""
    edges = [0, size - 1, *(at for m in range(MIB, size, MIB) for at in (m - 1, m))]
    return [*edges, *(rng.randrange(size) for _ in range(count))]


@pytest.mark.criterion("B2")
@pytest.mark.parametrize("name", ["step.onnx", "conditioner.onnx", MANIFEST])
def test_a_changed_byte_is_found(name: str, copy: Path, cases: Cases, nightly: bool) -> None:
    rng, size = random.Random(name), (copy / name).stat().st_size
    chosen = positions(size, POSITIONS[nightly], rng)
    if name == MANIFEST and nightly:
        chosen = list(range(size))
    flips = [(at, rng.choice([1 << rng.randrange(8), rng.randrange(1, 256)])) for at in chosen]
    cases.run(lambda flip: check(copy / name, *flip), flips)
    read_bundle(copy)


@pytest.mark.seeded("B2")
def test_a_partial_digest_is_seen(
    copy: Path, cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_mib(path: Path) -> str:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read(MIB)).hexdigest()

    monkeypatch.setattr(bundle_format, "file_sha256", first_mib)
    write_manifest(copy, {**read_json(copy / MANIFEST), "files": file_entries(copy)})
    flips = [(at, 1) for at in positions((copy / "step.onnx").stat().st_size, 5, random.Random(0))]
    with pytest.raises(AssertionError, match=r"byte 1048576 of step\.onnx may change"):
        cases.run(lambda flip: check(copy / "step.onnx", *flip), flips)
