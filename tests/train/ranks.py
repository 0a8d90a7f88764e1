"""Processes that train together as torchrun starts them, but with everything imported."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from difftool.errors import DifftoolError
from difftool.log import logger
from difftool.train import processes
from difftool.train.config import TrainConfig, apply_overrides
from difftool.train.state import TrainState
from difftool.train.trainer import train
from tests.reliability import forked

LAUNCHER: Final = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")

Signalled = tuple[int, int, signal.Signals] | None  # rank, step before which it comes, and which


def train_together(
    config: TrainConfig,
    folders: Sequence[Path],
    *overrides: str,
    signalled: Signalled = None,
) -> list[tuple[int, str]]:
    """Train in a process for each folder; return their exit codes and what they said."""
    store = folders[0].with_name(f"{folders[0].name}-{os.urandom(4).hex()}")
    chosen = apply_overrides(config, overrides)
    started = [
        forked.start(_train, chosen, folder, rank, len(folders), store, signalled)
        for rank, folder in enumerate(folders)
    ]
    ended = []
    for rank, process in enumerate(started):
        process.join()
        said = _said(store, rank)
        ended.append((int(process.exitcode or 0), said.read_text() if said.exists() else ""))
    return ended


def _said(store: Path, rank: int) -> Path:
    return store.with_name(f"{store.name}-{rank}.txt")


def _train(
    config: TrainConfig, folder: Path, rank: int, size: int, store: Path, signalled: Signalled
) -> None:
    import logging

    import torch

    os.environ.update(zip(LAUNCHER, map(str, (rank, size, rank, size)), strict=True))
    os.environ["OMP_NUM_THREADS"] = "1"
    # They meet in a file, so that no port has to be free.
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=size)
    processes.SECONDS_A_VOTE = 0.0  # a vote at each step, however fast the steps are
    said = _said(store, rank)
    logger("difftool").addHandler(logging.FileHandler(said))
    if signalled and signalled[0] == rank:
        _signal_before(signalled[1], signalled[2])
    try:
        train(config, folder)
    except DifftoolError as error:
        with said.open("a") as file:
            file.write(f"{error}\n")
        sys.exit(error.exit_code)


def _signal_before(step: int, number: signal.Signals) -> None:
    advance = TrainState.advance

    def advancing(state: TrainState) -> tuple:
        if state.step == step:
            os.kill(os.getpid(), number)
        return advance(state)

    TrainState.advance = advancing  # type: ignore[method-assign]
