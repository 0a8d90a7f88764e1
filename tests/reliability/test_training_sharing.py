"""Processes that write to the same place at the same time leave one whole result."""

import os
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

from difftool.bundle import read_bundle
from difftool.errors import UsageError
from difftool.files import atomic_directory, locked
from difftool.runtime.engine_cache import EngineCache
from difftool.train.config import parse, to_toml
from tests.fixtures import ENGINE_KEY
from tests.reliability import commands, forked, saves

WRITERS = 4
ROUNDS, ALL_ROUNDS = 30, 500


def replace_again_and_again(path: Path, rounds: int, writer: int, enough: Path | None) -> None:
    """So many times, and then on until there is the file `enough`."""
    index = 0
    while index < rounds or (enough and not enough.exists()):
        index += 1
        with atomic_directory(path, replace=lambda _: "abc") as folder:
            for name in "abc":
                (folder / name).write_text(f"{writer} {index}")


def test_a_folder_is_there_and_whole_while_many_replace_it(tmp_path: Path, nightly: bool) -> None:
    path, enough = tmp_path / "place" / "folder", tmp_path / "enough"
    replace_again_and_again(path, 1, 0, None)
    rounds = ALL_ROUNDS if nightly else ROUNDS
    writers = [
        forked.start(replace_again_and_again, path, rounds, writer, enough)
        for writer in range(WRITERS)
    ]
    looks = 0
    while any(writer.is_alive() for writer in writers):
        descriptor = os.open(path, os.O_RDONLY)  # never FileNotFoundError
        os.close(descriptor)
        looks += 1
        if looks == rounds:
            enough.touch()
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    assert len({(path / name).read_text() for name in "abc"}) == 1
    assert list(path.parent.iterdir()) == [path]


def write_once(path: Path, writer: int, all_have_begun: Barrier) -> None:
    """Finish a folder that was begun before any other writer ended; exit code 2 where refused."""
    try:
        with atomic_directory(path) as folder:
            (folder / "a").write_text(str(writer))
            all_have_begun.wait()
    except UsageError:
        os._exit(2)


def test_of_many_that_may_not_replace_one_wins(tmp_path: Path) -> None:
    path, barrier = tmp_path / "folder", forked.barrier(WRITERS)
    writers = [forked.start(write_once, path, writer, barrier) for writer in range(WRITERS)]
    for writer in writers:
        writer.join()
    codes = [writer.exitcode for writer in writers]
    assert sorted(map(int, codes)) == [0] + [2] * (WRITERS - 1)
    assert (path / "a").read_text() == str(codes.index(0))
    assert list(tmp_path.iterdir()) == [path]


def use_the_cache(folder: Path, rounds: int, writer: int) -> None:
    """Build, find and now and then remove the engine of one key; what is found must be whole."""
    cache = EngineCache(folder)
    for index in range(rounds):
        engine = f"engine {writer} {index % 2}".encode() * 99
        cache.store(ENGINE_KEY, engine, model="m", seconds=1.0)
        found = cache.find(ENGINE_KEY)
        if found is not None and index % 5 == 4:
            cache.remove(found)
        assert all(record.key == ENGINE_KEY for record in cache.records())


def test_a_cache_that_many_write_to(tmp_path: Path, nightly: bool) -> None:
    rounds = ALL_ROUNDS if nightly else ROUNDS
    writers = [forked.start(use_the_cache, tmp_path, rounds, writer) for writer in range(WRITERS)]
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    cache = EngineCache(tmp_path)
    record = cache.store(ENGINE_KEY, b"last", model="m", seconds=1.0)
    assert cache.find(ENGINE_KEY) == record
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2, f"engines without a record: {names}"


def test_commands_that_write_to_the_same_place(
    tmp_path: Path, tiny_bundle: Path, points_checkpoint: Path, nightly: bool
) -> None:
    (tmp_path / "images.bundle").symlink_to(tiny_bundle)
    (tmp_path / "points").symlink_to(points_checkpoint)
    given = sorted(path.name for path in tmp_path.iterdir())
    quantizing = "quantize images.bundle --out new.bundle --force"
    exporting = "export points --out new.bundle --force"
    lines = [quantizing, exporting if nightly else quantizing]
    with ThreadPoolExecutor() as pool:
        ended = list(pool.map(commands.run, lines, [tmp_path] * 2))
    assert [each.code for each in ended] == [0, 0], ended
    assert read_bundle(tmp_path / "new.bundle").manifest.files
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*given, "new.bundle"])


def hold(asked: Connection, folder: Path) -> None:
    with locked(folder, wait=False):
        asked.send("held")
        asked.recv()  # which never comes


def test_a_run_has_one_training_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(to_toml(parse(saves.SMALL["ncsn"])))
    (tmp_path / "run").mkdir()
    holder, answers = forked.connected(hold, tmp_path / "run")
    assert answers.recv() == "held"
    line = "train ncsn --config recipe.toml --out run"
    refused = commands.run(line, tmp_path)
    assert refused.code == 2, refused
    assert "another process is at work in run" in refused.err
    assert list((tmp_path / "run").iterdir()) == []
    holder.kill()
    holder.join()
    answers.close()
    assert commands.run(line, tmp_path).code == 0
