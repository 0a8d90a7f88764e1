"""One save of a checkpoint, done again and again with something going wrong in it.

Two kinds: "next" saves the next checkpoint of a run that keeps one, and so deletes the one before;
"again" saves other weights over the checkpoint that is there.
"""

import errno
import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from difftool import checkpoint as ckpt
from difftool.errors import ArtefactError, DifftoolError, ResourceError
from difftool.files import write_atomic
from difftool.train.config import parse
from difftool.train.data import load_data
from difftool.train.state import TrainState
from tests.recipes import IMAGES, POINTS
from tests.reliability import forked
from tests.reliability.commands import Defect
from tests.reliability.file_layer import dying, operation_name, raising, unseen, watched
from tests.reliability.power_loss import Disk, Folder, remains, write

KINDS: Final = ("next", "again")
BEFORE: Final = 2  # the step of the checkpoint that is there
AFTER: Final = 4
_SAVED_AGAIN = 10  # one in so many losses

_KEEP_ONE: Final = {"run": {**POINTS["run"], "keep": 1}}
SMALL: Final = {"ddpm": IMAGES | _KEEP_ONE, "ncsn": POINTS | _KEEP_ONE}


@dataclass(frozen=True)
class Outcome:
    """The end of a save that went wrong, and the problem that it left; None if it left none."""

    where: str
    problem: str | None

    def __repr__(self) -> str:
        return self.where


def nothing_is_lost(outcome: Outcome) -> None:
    assert outcome.problem is None, outcome.problem


class Save:
    """A run in `folder` with one checkpoint, and a state that is about to be saved into it."""

    def __init__(self, method: str, kind: str, folder: Path) -> None:
        self.method, self.kind, self.run = method, kind, folder / "run"
        self.state = self.fresh_state()
        self.to_the_first(self.state)
        self.state.save(self.run)
        self.to_the_second(self.state)
        self.before = saved(self.run)
        rehearsal = shutil.copytree(self.run, folder / "rehearsal")
        self.state.save(rehearsal)
        self.after = saved(rehearsal)
        self._scratch = self.fresh_state()

    def fresh_state(self) -> TrainState:
        config = parse(SMALL[self.method])
        return TrainState(config, load_data(config.data, config.run.seed))

    def to_the_first(self, state: TrainState) -> None:
        for _ in range(BEFORE):
            state.advance()

    def to_the_second(self, state: TrainState) -> None:
        for _ in range(AFTER - BEFORE):
            state.advance()
        if self.kind == "again":
            state.step = BEFORE

    def problem(
        self, run: Path, allowed: list[dict[str, str] | None], *, again: bool = True
    ) -> str | None:
        """Return what is wrong with a run after a save, whole or cut short; None if nothing is.

        One of the `allowed` must be found, of which None is no checkpoint at all, and must load.
        If it is saved `again` it must be the same, and alone.
        """
        if None in allowed and not ckpt.list_checkpoints(run):
            return None
        try:
            found = saved(run)
            if found not in allowed:
                return "another checkpoint is found"
            self._scratch.restore(ckpt.find_checkpoint(run))
        except ArtefactError as error:
            return f"none loads: {error}"
        if again:
            folder = self._scratch.save(run)
            left = sorted(path.name for path in folder.parent.iterdir())
            if saved(run) != found or left != [folder.name]:
                return f"saved again it is not the same, or not alone: {left}"
        return None


def saved(run: Path) -> dict[str, str]:
    """Return the digests of the checkpoint that a run would go on from."""
    config = ckpt.read_config(ckpt.find_checkpoint(run))
    return {name: entry["sha256"] for name, entry in config["files"].items()}


def of_each(
    failing: Callable[..., Iterator[Outcome]], nightly: bool, folder: Path, *arguments: Any
) -> Iterator[Outcome]:
    """Yield the outcomes of every method and kind of save, each in a process of its own.

    In full those are of every kind for every method, in the short tier of one kind for each.
    """
    pairs = itertools.product(SMALL, KINDS) if nightly else zip(SMALL, KINDS, strict=True)
    for method, kind in pairs:
        yield from forked.each(failing, method, kind, folder / f"{method}-{kind}", *arguments)


def _prepared(method: str, kind: str, folder: Path, defect: Defect | None) -> Save:
    folder.mkdir()
    os.fsync = _nothing  # it makes no difference if no power goes, or if that is a model
    save = Save(method, kind, folder)
    if defect is not None:
        defect()
    return save


def kills(method: str, kind: str, folder: Path, defect: Defect | None = None) -> Iterator[Outcome]:
    """Kill saves at their first file operation, their second and so on, and let the last one end.

    Each happens in a fork of this process, which has only one thread.
    """
    save = _prepared(method, kind, folder, defect)
    for at in itertools.count(1):
        for share in (0.0, 0.5):  # of a write that is cut short
            work = shutil.copytree(save.run, folder / "work")
            died = _killed(save, work, at, share)
            allowed: list[Any] = [save.after] if died is None else [save.before, save.after]
            where = f"{method} {kind}, killed at {at}, {died} {share}"
            yield Outcome(where, save.problem(work, allowed))
            shutil.rmtree(work)
            if died != "write":
                break
        if died is None:
            return


def _killed(save: Save, run: Path, at: int, share: float) -> str | None:
    child = os.fork()
    if child == 0:
        code = 99
        try:
            with watched(dying(at, share)):
                save.state.save(run)
            code = 0
        finally:
            os._exit(code)
    return operation_name(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def power_losses(
    method: str, kind: str, folder: Path, draws: int, defect: Defect | None = None
) -> Iterator[Outcome]:
    """Yield what a loss of power at each file operation of two saves on an empty disk may leave.

    It leaves all that lasts, or that and what one of `draws` chances adds. What differs in hidden
    names alone is loaded once.
    """
    save = _prepared(method, kind, folder, defect)
    (root := folder / "disk").mkdir()
    disk, state = Disk(root), save.fresh_state()
    moments: list[tuple[str, Folder, list[Any]]] = []

    def record(action: Callable[[], object], allowed: list[Any]) -> None:
        with watched(disk.hook):
            action()
        moments.extend((name, tree, allowed) for name, tree in disk.taken())

    record(lambda: write_atomic(root / "run" / "config.toml", b""), [None])
    steps = ((None, save.before, save.to_the_first), (save.before, save.after, save.to_the_second))
    for earlier, later, train_to_it in steps:
        train_to_it(state)
        record(lambda: state.save(root / "run"), [earlier, later])
        moments.append(("the end", moments[-1][1], [later]))

    chance = random.Random(f"{method} {kind}")
    problems: dict[str, str | None] = {}
    for at, (name, tree, allowed) in enumerate(moments, 1):
        for draw in range(draws + 1):
            left = remains(tree, chance if draw else None)
            seen = {path: content for path, content in left.items() if "/." not in path}
            key = repr((allowed, sorted(seen.items())))
            again = draw == 1 and at % _SAVED_AGAIN == 0
            if again or key not in problems:
                work = folder / "work"
                write(left, work)
                problems[key] = save.problem(work / "run", allowed, again=again)
                shutil.rmtree(work)
            yield Outcome(f"{method} {kind}, lost after {at}, {name}, {draw}", problems[key])


def errors(
    method: str,
    kind: str,
    folder: Path,
    numbers: Sequence[int],
    every: int = 1,
    defect: Defect | None = None,
) -> Iterator[Outcome]:
    """Let all fail in a save from some operation on, with one in `every` of the errnos each."""
    save = _prepared(method, kind, folder, defect)
    for at in itertools.count(1):
        for number in numbers[at % every :: every]:
            work = shutil.copytree(save.run, folder / "work")
            name, problem = _failed(save, work, at, number)
            yield Outcome(f"{method} {kind}, {errno.errorcode[number]} from {at}, {name}", problem)
            shutil.rmtree(work)
        if name is None:
            return


def _failed(save: Save, run: Path, at: int, number: int) -> tuple[str | None, str | None]:
    """Return at which operation a save failed first, and what was wrong after it."""
    failures: list[str] = []
    error: DifftoolError | None = None
    try:
        with watched(raising(at, number, failures)):
            save.state.save(run)
    except DifftoolError as raised:
        error = raised
    first = failures[0] if failures else None
    if error is None:
        # A folder that may not be read cannot be synced, which is no reason not to write there.
        excused = number == errno.EACCES and saved(run) == save.after
        return first, None if excused or first is None else "nobody is told"
    if error.exit_code != ResourceError.exit_code or os.strerror(number) not in error.message:
        return first, f"it says: {error}"
    if left := [path.name for path in (run / "checkpoints").iterdir() if path.name[0] == "."]:
        return first, f"it leaves {left}"
    return first, save.problem(run, [save.before, save.after], again=False)


def _nothing(descriptor: int) -> None:
    pass


def unseen_in_a_save(method: str, folder: Path) -> list[str]:
    """Return the file operations of a save that the hooks do not see."""
    save = Save(method, "next", folder)
    return unseen(save.run, lambda: save.state.save(save.run))
