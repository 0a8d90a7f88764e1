"""The thread that owns a device: errors reach the caller, and nothing waits for it in vain."""

import gc
import threading

import pytest

from difftool.runtime.cuda.owner import Owner
from tests.fresh import python
from tests.reliability.forked import PATIENCE


def owner_thread(owner: Owner) -> threading.Thread:
    return owner.call(threading.current_thread)


def test_all_work_is_done_on_one_other_thread() -> None:
    owner = Owner()
    threads = {owner_thread(owner) for _ in range(20)}
    assert len(threads) == 1
    assert threading.current_thread() not in threads
    assert owner_thread(Owner()) not in threads


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), MemoryError()])
def test_errors_are_raised_in_the_caller_and_the_thread_goes_on(error: BaseException) -> None:
    def fail() -> None:
        raise error

    owner = Owner()
    with pytest.raises(type(error)) as caught:
        owner.call(fail)
    assert caught.value is error
    assert owner.call(lambda: 3) == 3


def test_the_thread_ends_with_the_owner() -> None:
    owner = Owner()
    thread = owner_thread(owner)
    del owner
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()


END = """
import atexit, threading
from difftool.errors import UsageError

@atexit.register
def late():
    try:
        owner.call(print)
    except UsageError as error:
        print(error.message)

from difftool.runtime.cuda.owner import Owner

owner = Owner(at_end=lambda: print("freed by", threading.current_thread().name))
owner.call(lambda: print("working"))
"""


def test_an_owner_that_is_held_to_the_end_frees_and_ends() -> None:
    done = python("-c", END)
    assert done.stdout.splitlines() == [
        "working",
        "freed by difftool-device",
        "the device is closed, as the interpreter ends",
    ]
    assert (done.returncode, done.stderr) == (0, "")


FORK = """
import os, signal, sys
from difftool.errors import DifftoolError
from difftool.runtime.cuda.owner import Owner

owner = Owner()
print(owner.call(lambda: 1), flush=True)
if (child := os.fork()) == 0:
    signal.alarm(500)
    try:
        owner.call(lambda: 2)
    except DifftoolError as error:
        print(type(error).__name__, error.message, "|", error.hint)
    print(Owner().call(lambda: 3), flush=True)
    sys.exit()  # the end of an interpreter, which waits for threads
_, status = os.waitpid(child, 0)
print(status, owner.call(lambda: 4))
"""


def test_a_fork_is_refused_and_both_processes_end() -> None:
    first, refused, own, parent = python("-c", FORK).stdout.splitlines()
    assert (first, own, parent) == ("1", "3", "0 4")
    assert refused.startswith("UsageError this device was opened in process ")
    assert refused.endswith("| load the model in the child")
