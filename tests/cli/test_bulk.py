"""difftool sample --shard-size: a folder, its report, and the commands that read it."""

import signal
from pathlib import Path

import datasets
import pytest

from difftool import scale
from tests.cli.conftest import Command, Refusal


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the datasets library that goes away with the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_a_folder_that_other_commands_read(difftool: Command, points_bundle: Path) -> None:
    line = ("sample", points_bundle, "--seed", 5, "--max-batch", 4, "--out")
    value = difftool(*line, "folder", "-n", 20, "--shard-size", 8, "--json").json()
    assert (value["shards"], value["shard_size"], value["n"], value["seed"]) == (3, 8, 20, 5)
    assert value["samples_sha256"] == scale.read_manifest("folder").samples_sha256
    assert difftool(*line, "file.npz", "-n", 20, "--deterministic", "--threads", 1).code == 0
    figures = [
        difftool("eval", "--samples", name, "--against", "gaussians", "--json").json()
        for name in ("folder", "file.npz")
    ]
    assert figures[0]["figures"] == figures[1]["figures"]
    assert figures[0]["samples_sha256"] == value["samples_sha256"]
    run = ("--data", "folder", "--steps", 1, "--batch", 8, "--out", "run")
    assert difftool("train", "ncsn", "--preset", "toy", *run).code == 0


def test_a_poor_program_is_said_and_drawn(difftool: Command, tiny_bundle: Path) -> None:
    line = ("sample", tiny_bundle, "--sampler", "ddim", "--steps", 2, "-n", 2, "--shard-size", 1)
    done = difftool(*line, "--out", "one")
    assert done.err.startswith("warning: with so few steps, 2, each divides the noise by ")
    (said,) = difftool(*line, "--out", "two", "--json").json()["warnings"]
    assert done.err == f"warning: {said}\n"


def test_labels_are_taken_in_turn(difftool: Command, classes_bundle: Path) -> None:
    line = ("sample", classes_bundle, "-n", 5, "--shard-size", 2, "--max-batch", 2)
    assert difftool(*line, "--labels", "2,0-1,none", "--out", "out").code == 0
    assert scale.read_manifest("out").request.labels == [2, 0, 1, 3]
    table = datasets.load_dataset("out", split="train")
    assert table["label"][:] == [2, 0, 1, None, 2]


def test_an_interrupt_leaves_a_folder_to_go_on_with(
    difftool: Command, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("sample", tiny_bundle, "-n", 5, "--shard-size", 2, "--max-batch", 2, "--out")
    write, written = scale.bulk.write_manifest, []

    def interrupted(*arguments: object) -> None:
        write(*arguments)
        written.append(arguments)
        if len(written) == 2:  # the first shard is there
            signal.raise_signal(signal.SIGTERM)  # it is as Ctrl-C, which a background job ignores

    with monkeypatch.context() as patch:
        patch.setattr(scale.bulk, "write_manifest", interrupted)
        done = difftool(*line, "out")
    assert (done.code, done.err) == (130, "error: interrupted\n")
    assert [shard.n for shard in scale.read_manifest("out").shards] == [2]
    assert difftool(*line, "out").code == difftool(*line, "whole").code == 0
    assert scale.read_manifest("out") == scale.read_manifest("whole")


@pytest.mark.parametrize(
    ("line", "code", "message", "hint"),
    [
        ("--shard-size 5", 2, "needs a name", "--out FOLDER"),
        ("--shard-size 0 --out new", 2, "shards of 0", "at least 1"),
        ("--ray local -n 0 --out new", 2, "0 samples", "at least 1"),
        ("--ray 127.0.0.1:1 --out new", 5, "no cluster answers", "ray start"),
        ("--ray nowhere --out new", 2, "is no address", "HOST:PORT"),
        ("--ray local --device 1 --out new", 2, "Ray chooses", "leave --device out"),
        ("--shard-size 5 --between 0,1 --out new", 2, "--between does not go", "leave"),
        ("--shard-size 5 --force --out new", 2, "--force does not go", "leave"),
        ("--shard-size 5 --scale 2 --out new", 2, "--scale does not go", "leave"),
        ("--shard-size 5 --strength 0 --out new", 2, "--strength does not go", "leave"),
        ("--gpus-per-task 1 --out new.npz", 2, "those of a shard", "--ray"),
        ("--shard-size 5 --out .", 2, "is no folder of samples", "empty folder"),
        ("--shard-size 5 --max-work 9 --out new", 5, "9 are allowed", "--max-work"),
    ],
)
def test_refusals(
    line: str, code: int, message: str, hint: str, refuses: Refusal, tiny_bundle: Path
) -> None:
    Path("mine.txt").write_text("")
    refuses(("sample", tiny_bundle, *line.split()), code, message, hint)


def test_a_folder_of_another_model(
    difftool: Command, refuses: Refusal, tiny_bundle: Path, classes_bundle: Path
) -> None:
    line = ("-n", 3, "--shard-size", 2, "--max-batch", 2, "--out", "out")
    assert difftool("sample", tiny_bundle, *line).code == 0
    refuses(
        ("sample", classes_bundle, *line), 2, "of another request: model_sha256", "another folder"
    )


def test_a_folder_that_lacks_shards(difftool: Command, refuses: Refusal, tiny_bundle: Path) -> None:
    line = ("sample", tiny_bundle, "-n", 4, "--shard-size", 2, "--max-batch", 2, "--out", "out")
    assert difftool(*line).code == 0
    Path("out/data/train-00001-of-00002.parquet").unlink()
    message = ("holds 1 of its 2 shards", "repeat the command")
    refuses(("eval", "--samples", "out", "--against", "digits"), 2, *message)
    done = difftool("train", "ddpm", "--data", "out", "--out", "run")
    assert (done.code, done.err.splitlines()[1]) == (2, "error: out holds 1 of its 2 shards")
