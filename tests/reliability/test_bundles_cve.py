"""B3: known ways out of a model's folder are closed, each by a check of its own.

The files of corpus/cve have the names of what they try. Each is put into a bundle whose digests
are right, beside a file that is none of the bundle's.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from difftool.bundle import MANIFEST, STEP, file_entries, write_manifest
from difftool.files import read_json, sha256_of
from tests.reliability.criteria import Cases
from tests.reliability.warm import Warm, one_error

CORPUS: Final = Path(__file__).parent / "corpus" / "cve"
REFUSED: Final = 3
SECRET: Final = b"not of the bundle"

EXTERNAL: Final = """
from difftool.preflight.schema import MESSAGES, Field
tensor = MESSAGES["TensorProto"]
tensor[13], tensor[14] = Field("unseen", "StringStringEntryProto", many=True), Field("no", "int32")
"""
LINKS: Final = "import difftool.bundle as b; b._is_link = lambda found: False"
NAMES: Final = "import difftool.bundle as b; b._is_plain = lambda name: True"
FOLDERS: Final = """
import tarfile
from pathlib import Path
import difftool.runtime.model as m

def unpacked(model, find=m.find_bundle):
    out = Path("unpacked")
    with tarfile.open(model) as archive:
        archive.extractall(out, filter="fully_trusted")
    return find(out)

m.find_bundle = unpacked
"""


@dataclass(frozen=True)
class Attempt:
    """What is tried: `arrange` puts a file into a bundle; `code` names the check that refuses it.

    `reverted` is that check taken out. `line` is the command, of the file itself where `alone`.
    """

    name: str
    arrange: Callable[[Path, Path], None]
    code: str
    reverted: str
    line: tuple[str, ...] = ("sample", "-n", "1", "--out", "samples.npz")
    alone: bool = False


def graph(bundle: Path, file: Path) -> None:
    """The step graph keeps its weights in the place that the file names."""
    shutil.copy(file, bundle / STEP)


def linked_graph(bundle: Path, file: Path) -> None:
    """The step graph is a symbolic link to one outside."""
    shutil.copy(file, bundle.parent / "graph.onnx")
    (bundle / STEP).unlink()
    (bundle / STEP).symlink_to(bundle.parent / "graph.onnx")


def hard_link(bundle: Path, file: Path) -> None:
    """The graph's weights are a file of the bundle, which is a hard link to one outside."""
    shutil.copy(file, bundle / STEP)
    os.link(bundle.parent / "secret.bin", bundle / "weights.bin")


def listed_outside(bundle: Path, file: Path) -> None:
    """The manifest lists a file outside the bundle."""
    shutil.copy(file, bundle.parent / "other.tar")


ATTEMPTS: Final = (
    Attempt("CVE-2022-25882.onnx", graph, "graph-external", EXTERNAL),
    Attempt("CVE-2024-27318.onnx", graph, "graph-external", EXTERNAL),
    Attempt("CVE-2024-5187.tar", listed_outside, "bundle-path", NAMES),
    Attempt("CVE-2024-5187.tar", graph, "bundle-missing", FOLDERS, alone=True),
    Attempt("CVE-2025-51480.onnx", graph, "graph-external", EXTERNAL, ("quantize",)),
    Attempt("CVE-2026-27489.onnx", graph, "graph-external", EXTERNAL),
    Attempt("CVE-2026-27489.onnx", linked_graph, "bundle-link", LINKS),
    Attempt("CVE-2026-34446.onnx", hard_link, "bundle-link", LINKS),
)


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    with Warm() as process:
        yield process


def check(attempt: Attempt, tiny_bundle: Path, folder: Path, warm: Warm, setup: str = "") -> None:
    """AssertionError unless an attempt is refused by the check that is there for it."""
    shutil.rmtree(folder, ignore_errors=True)
    bundle = Path(shutil.copytree(tiny_bundle, folder / "bundle"))
    outside = [folder / name for name in ("secret.bin", "victim.bin")]
    for file in outside:
        file.write_bytes(SECRET)
    attempt.arrange(bundle, CORPUS / attempt.name)
    entries = file_entries(bundle)
    if attempt.arrange is listed_outside:
        listed = CORPUS / attempt.name
        entry = {"size": listed.stat().st_size, "sha256": sha256_of(listed)}
        entries |= {"../other.tar": entry}
    write_manifest(bundle, {**read_json(bundle / MANIFEST), "files": entries})
    command, *rest = attempt.line
    given = CORPUS / attempt.name if attempt.alone else bundle
    (folder / "out").mkdir()
    ran = warm([command, given, *rest], folder / "out", setup=setup)
    assert [file.read_bytes() for file in outside] == [SECRET, SECRET], "a file was overwritten"
    one_error(ran, (REFUSED,))
    assert ran.error_code == attempt.code, ran.err
    assert not list((folder / "out").iterdir()), "something was written"


@pytest.mark.criterion("B3")
def test_every_way_out_is_shut(tiny_bundle: Path, tmp_path: Path, warm: Warm, cases: Cases) -> None:
    assert {file.name for file in CORPUS.iterdir()} == {attempt.name for attempt in ATTEMPTS}
    cases.run(lambda attempt: check(attempt, tiny_bundle, tmp_path / "room", warm), ATTEMPTS)


@pytest.mark.seeded("B3")
@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: f"{attempt.name}-{attempt.code}")
def test_a_lost_check_is_seen(
    attempt: Attempt, tiny_bundle: Path, tmp_path: Path, warm: Warm
) -> None:
    with pytest.raises(AssertionError):
        check(attempt, tiny_bundle, tmp_path / "room", warm, attempt.reverted)
