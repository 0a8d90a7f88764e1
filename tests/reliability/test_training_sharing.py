"""Processes that write to the same place at the same time leave one whole result."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
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
ROUNDS = {False: 30, True: 500}


def exit_codes(function: Callable[..., None], *arguments: object) -> list[int]:
    """Return the exit codes of writers that run at the same time, each told its number last."""
    writers = [forked.start(function, *arguments, number) for number in range(WRITERS)]
    for writer in writers:
        writer.join()
    return [int(writer.exitcode or 0) for writer in writers]


def replace_again_and_again(path: Path, rounds: int, writer: int, enough: Path | None) -> None:
    """Replace a folder so many times, and then on until there is the file `enough`."""
    index = 0
    while index < rounds or (enough and not enough.exists()):
        index += 1
        with atomic_directory(path, replace=lambda _: "abc") as folder:
            for name in "abc":
                (folder / name).write_text(f"{writer} {index}")


def test_a_folder_is_there_and_whole_while_many_replace_it(tmp_path: Path, nightly: bool) -> None:
    path, enough = tmp_path / "place" / "folder", tmp_path / "enough"
    replace_again_and_again(path, 1, 0, None)
    rounds = ROUNDS[nightly]
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


def write_once(path: Path, all_have_begun: Barrier, writer: int) -> None:
    """Finish a folder that was begun before any other writer ended; exit code 2 if refused."""
    try:
        with atomic_directory(path) as folder:
            (folder / "a").write_text(str(writer))
            all_have_begun.wait()
    except UsageError:
        os._exit(2)


def test_of_many_that_may_not_replace_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    codes = exit_codes(write_once, path, forked.barrier(WRITERS))
    assert sorted(codes) == [0] + [2] * (WRITERS - 1)
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
    assert exit_codes(use_the_cache, tmp_path, ROUNDS[nightly]) == [0] * WRITERS
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


def hold(folder: Path) -> Iterator[str]:
    with locked(folder, wait=False):
        yield "held"
        signal.pause()  # until it is killed


def test_a_run_has_one_training_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(to_toml(parse(saves.SMALL["ncsn"])))
    (tmp_path / "run").mkdir()
    line = "train ncsn --config recipe.toml --out run"
    with closing(forked.each(hold, tmp_path / "run")) as holder:
        assert next(holder) == "held"
        refused = commands.run(line, tmp_path)
        assert refused.code == 2, refused
        assert "another process is at work in run" in refused.err
        assert list((tmp_path / "run").iterdir()) == []
    assert commands.run(line, tmp_path).code == 0
