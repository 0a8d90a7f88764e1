"""Processes that begin with everything imported, so that hundreds of them can be killed.

A server imports the libraries once and forks; what it forks has no threads of pytest's in it.
"""

import multiprocessing
import multiprocessing.connection
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.synchronize import Barrier
from typing import Any

PATIENCE = 500  # seconds, which no machine needs: against what hangs

_CONTEXT: ForkServerContext = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "pytest",
        "sklearn.datasets",
        "torch._dynamo",  # this and the next three are what a training imports on demand
        "torch._meta_registrations",
        "torch.distributed.fsdp",
        "torch.distributed.tensor",
        "difftool.train.trainer",
    ]
)


def start(function: Callable[..., None], *arguments: object) -> ForkServerProcess:
    """A process that runs a function of a module."""
    process = _CONTEXT.Process(target=_single_threaded, args=(function, *arguments))
    process.start()
    return process


def barrier(parties: int) -> Barrier:
    """At which so many of these processes wait for each other."""
    return _CONTEXT.Barrier(parties)


def connected(
    function: Callable[..., None], *arguments: object
) -> tuple[ForkServerProcess, multiprocessing.connection.Connection]:
    """The same, of a function whose first argument is the other end of a connection."""
    ours, theirs = _CONTEXT.Pipe()
    process = start(function, theirs, *arguments)
    theirs.close()
    return process, ours


def call(function: Callable[..., Any], *arguments: object) -> Any:
    """What a function returns in a process of its own; AssertionError where that died."""
    process, ours = connected(_answer, function, *arguments)
    with ours:
        try:
            assert ours.poll(PATIENCE), "the process hangs"
            return ours.recv()
        except EOFError:
            process.join()
            raise AssertionError(f"the process ended with {process.exitcode}") from None
        finally:
            process.kill()
            process.join()


def _answer(
    theirs: multiprocessing.connection.Connection, function: Callable[..., Any], *arguments: object
) -> None:
    theirs.send(function(*arguments))


def _single_threaded(function: Callable[..., None], *arguments: object) -> None:
    import torch

    torch.set_num_threads(1)
    function(*arguments)
