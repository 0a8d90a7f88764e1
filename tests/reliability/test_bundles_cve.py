"""B3: known ways out of a model's folder are closed, each by a check of its own.

The files of corpus/cve have the names of what they try. Each is put into a bundle whose digests
are right, beside a file that is none of the bundle's.
"""

import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from difftool import bundle as bundle_format
from difftool.bundle import MANIFEST, STEP, file_entries, write_manifest
from difftool.files import file_sha256, read_json
from difftool.preflight.schema import MESSAGES, Field
from difftool.runtime import shipped
from tests.reliability import commands
from tests.reliability.commands import Defect, Trouble, require_one_error
from tests.reliability.criteria import Cases

CORPUS: Final = Path(__file__).parent / "corpus" / "cve"
REFUSED: Final = 3
SECRET: Final = b"not of the bundle"


def see_no_external_data() -> None:
    tensor = MESSAGES["TensorProto"]
    tensor[13] = Field("unseen", "StringStringEntryProto", many=True)
    tensor[14] = Field("no", "int32")


def see_no_links() -> None:
    bundle_format._is_link = lambda found: False


def allow_all_names() -> None:
    bundle_format._is_plain = lambda name: True


def unpack_archives() -> None:
    find = shipped.find_bundle

    def unpacked(path: Path | str) -> Path:
        with tarfile.open(path) as archive:
            archive.extractall(filter="fully_trusted")
        return find(path)

    shipped.find_bundle = unpacked


@dataclass(frozen=True)
class Attempt:
    """An attack: `arrange` puts a file into a bundle; `code` names the check that refuses it.

    `reverted` takes that check out. `line` is the command, of the file itself if `alone`.
    """

    name: str
    arrange: Callable[[Path, Path], None]
    code: str
    reverted: Defect
    line: tuple[str, ...] = ("sample", "-n", "1", "--out", "samples.npz")
    alone: bool = False


def graph(bundle: Path, file: Path) -> None:
    """Let the step graph keep its weights in the place that the file names."""
    shutil.copy(file, bundle / STEP)


def linked_graph(bundle: Path, file: Path) -> None:
    """Make the step graph a symbolic link to one outside."""
    shutil.copy(file, bundle.parent / "graph.onnx")
    (bundle / STEP).unlink()
    (bundle / STEP).symlink_to(bundle.parent / "graph.onnx")


def hard_link(bundle: Path, file: Path) -> None:
    """Make the graph's weights a file of the bundle that is a hard link to one outside."""
    shutil.copy(file, bundle / STEP)
    os.link(bundle.parent / "secret.bin", bundle / "weights.bin")


def listed_outside(bundle: Path, file: Path) -> None:
    """Put the file outside the bundle, where `check` lists it."""
    shutil.copy(file, bundle.parent / "other.tar")


ATTEMPTS: Final = (
    Attempt("CVE-2022-25882.onnx", graph, "graph-external", see_no_external_data),
    Attempt("CVE-2024-27318.onnx", graph, "graph-external", see_no_external_data),
    Attempt("CVE-2024-5187.tar", listed_outside, "bundle-path", allow_all_names),
    Attempt("CVE-2024-5187.tar", graph, "bundle-missing", unpack_archives, alone=True),
    Attempt("CVE-2025-51480.onnx", graph, "graph-external", see_no_external_data, ("quantize",)),
    Attempt("CVE-2026-27489.onnx", graph, "graph-external", see_no_external_data),
    Attempt("CVE-2026-27489.onnx", linked_graph, "bundle-link", see_no_links),
    Attempt("CVE-2026-34446.onnx", hard_link, "bundle-link", see_no_links),
)


def check(attempt: Attempt, tiny_bundle: Path, folder: Path, defect: Defect | None = None) -> None:
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
        entry = {"size": listed.stat().st_size, "sha256": file_sha256(listed)}
        entries |= {"../other.tar": entry}
    write_manifest(bundle, {**read_json(bundle / MANIFEST), "files": entries})
    command, *rest = attempt.line
    given = CORPUS / attempt.name if attempt.alone else bundle
    (folder / "out").mkdir()
    ended = commands.run([command, given, *rest], folder / "out", Trouble(defect=defect))
    assert [file.read_bytes() for file in outside] == [SECRET, SECRET], "a file was overwritten"
    require_one_error(ended, (REFUSED,))
    assert ended.error_code == attempt.code, ended.err
    assert not list((folder / "out").iterdir()), "something was written"


@pytest.mark.criterion("B3")
def test_every_way_out_is_shut(tiny_bundle: Path, tmp_path: Path, cases: Cases) -> None:
    assert {file.name for file in CORPUS.iterdir()} == {attempt.name for attempt in ATTEMPTS}
    cases.run(lambda attempt: check(attempt, tiny_bundle, tmp_path / "room"), ATTEMPTS)


@pytest.mark.seeded("B3")
@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: f"{attempt.name}-{attempt.code}")
def test_a_lost_check_is_seen(attempt: Attempt, tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        check(attempt, tiny_bundle, tmp_path / "room", attempt.reverted)
    assert "Traceback" not in str(caught.value)  # it is what the check is for, and no other error
