"""Processes that begin with everything imported, so that hundreds of them can be run or killed.

A server imports the libraries once and forks; what it forks has no threads of pytest's in it.
"""

import gc
import multiprocessing
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.synchronize import Barrier
from typing import Any

PATIENCE = 500  # seconds, which no machine needs: against what hangs

_CONTEXT: ForkServerContext = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        *("pytest", "sklearn.datasets", "onnxruntime", "onnxscript", "typer.main"),
        # What a training or an export imports on demand.
        *("torch._dynamo", "torch._meta_registrations", "torch.onnx._internal.exporter._core"),
        *("torch.distributed.fsdp", "torch.distributed.tensor"),
        *("difftool.cli.app", "difftool.cli.inputs", "difftool.cli.output"),
        *("difftool.runtime.model", "difftool.runtime.backends.onnxruntime_cpu"),
        *("difftool.runtime.cuda.cuda_device", "difftool.importers.importing"),
        *("difftool.train.trainer", "difftool.export.bundle", "difftool.verify.compared"),
        *("difftool.compile.quantization.bundle", "difftool.compile.engine.target"),
        *("difftool.plot", "difftool.evaluate.evaluation"),
    ]
)


def start(function: Callable[..., None], *arguments: object) -> ForkServerProcess:
    """Start a process that runs a function of a module."""
    process = _CONTEXT.Process(target=_single_threaded, args=(function, *arguments))
    process.start()
    return process


def barrier(parties: int) -> Barrier:
    """Return a barrier at which so many of these processes wait for each other."""
    return _CONTEXT.Barrier(parties)


def each(function: Callable[..., Iterator[Any]], *arguments: object) -> Generator[Any, None, None]:
    """Yield what a generator yields in a process of its own; AssertionError if that dies."""
    ours, theirs = _CONTEXT.Pipe(duplex=False)
    process = start(_send_each, theirs, function, *arguments)
    theirs.close()
    with ours:
        try:
            while True:
                assert ours.poll(PATIENCE), "the process hangs"
                yield ours.recv()
        except EOFError:
            process.join()
            if process.exitcode:
                raise AssertionError(f"the process ended with {process.exitcode}") from None
        finally:
            process.kill()
            process.join()


def call(function: Callable[..., Any], *arguments: object) -> Any:
    """Return what a function returns in a process of its own; AssertionError if that dies."""
    with closing(each(_once, function, *arguments)) as found:
        return next(found)


def _once(function: Callable[..., Any], *arguments: object) -> Iterator[Any]:
    yield function(*arguments)


def _send_each(
    theirs: Connection, function: Callable[..., Iterator[Any]], *arguments: object
) -> None:
    for item in function(*arguments):
        theirs.send(item)


def _single_threaded(function: Callable[..., None], *arguments: object) -> None:
    import torch

    gc.freeze()  # so that a collection does not write to pages that the processes share
    torch.set_num_threads(1)
    function(*arguments)
