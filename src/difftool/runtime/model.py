"""A loaded bundle that draws samples. This is the embedding API."""

import os
import threading
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from difftool.bundle import Bundle, Limits
from difftool.diffusion.features import Feature
from difftool.diffusion.program import MAX_ROWS, Program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import Cancelled, CheckFailed, UsageError
from difftool.log import logger
from difftool.runtime.edits import Edit, Inpaint
from difftool.runtime.loop import run
from difftool.runtime.memory import cached_batch, no_memory, no_memory_for_samples
from difftool.runtime.opening import open_backend, split_name
from difftool.runtime.protocols import Backend, Batch, Known, LikesBatches
from difftool.runtime.request import Request, takes_request
from difftool.runtime.scheduling.runner import Runner
from difftool.runtime.scheduling.scheduler import Scheduler
from difftool.runtime.scheduling.settings import SchedulerSettings
from difftool.runtime.scheduling.slots import OffersSlots
from difftool.runtime.scheduling.ticket import Ticket
from difftool.runtime.shipped import open_bundle
from difftool.runtime.state import Hook, State

Floats = NDArray[np.float32]

_log = logger(__name__)

MAX_WORK: Final = 10**12
"""The most work of a request: samples x numbers of one x steps. It is most of a day on a GPU."""


class Model:
    """A bundle opened on a backend.

    Any number of threads may sample one model at the same time: a call has its own buffers, and
    draws the samples that it would draw alone. A process forked after `load` must load its own.

    `max_batch` samples run together; by default as many as the backend likes best, or else as many
    as fit into a CPU's cache. Samples depend on it by rounding alone. `max_work` is how many
    numbers one call may compute: samples times their numbers times steps. `precision` is that in
    which the backend was opened.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        *,
        max_batch: int | None = None,
        max_work: int = MAX_WORK,
        precision: str = "fp32",
    ) -> None:
        if max_batch is not None and max_batch < 1:
            raise UsageError(f"a batch of {max_batch}", "max_batch is at least 1")
        self.bundle = bundle
        self.backend = backend
        if isinstance(backend, LikesBatches):
            best = backend.best_batch
        else:
            best = cached_batch(bundle.spec.shape)
        self.max_batch = max_batch or best
        self.max_work = max_work
        self.precision = precision
        self._process = os.getpid()
        self._runner: Runner | None = None
        self._starting = threading.Lock()

    def __repr__(self) -> str:
        runs = f"{self.backend.name}, {self.precision}, batches of {self.max_batch}"
        own = self.bundle.manifest.program.call
        return f"<Model {self.bundle.path.name} {self.spec.shape}: {runs}; {own} by default>"

    @property
    def spec(self) -> ModelSpec:
        """Return what samplers need to know of the model."""
        return self.bundle.spec

    def default_program(self) -> Program:
        """Return the program that the bundle was exported with."""
        return self.bundle.default_program()

    def program_of(self, quality: str) -> Program:
        """Return the cheapest program that gives "draft", "good" or "best" quality.

        UsageError if there is no such quality, or if nothing was measured of this bundle; see
        `difftool.evaluate.measure`.
        """
        return self.bundle.program_of(quality)

    @takes_request(Request)
    def sample(self, request: Request) -> Floats:
        """Draw samples, as in `model.sample(program, n=4, seed=0)`; float32 [n, *S].

        The arguments are the fields of `Request`, which describes them.

        Raises:
            UsageError: an argument has no meaning, or this is a fork of the process that loaded.
            ResourceError: memory is short, and which `max_batch` to try; or it is more work than
                `max_work`.
            CheckFailed: a sample is not finite.
            Cancelled: `on_step` returned False.
        """
        if request.on_step is None:  # nobody looks: a device need not stop on the way
            request = replace(request, every=MAX_ROWS)
        states = self.run(request)  # which also refuses what is too much to allocate
        result = self._allocate(request.n)
        for state in states:
            if state.step == state.steps:
                _require_finite(state, self._program(request).name)
                offset = state.first - request.first_sample
                result[offset : offset + len(state.x)] = state.x
        return result

    @takes_request(Request)
    def stream(self, request: Request) -> Iterator[State]:
        """Run as `sample` does, and yield a State after `every` so many rows, batch after batch.

        The arguments are the fields of `Request`, as in `model.stream(program, n=4, every=5)`.
        Leaving the loop ends the run. On a device the rows between two states run without a stop.
        """
        return self.run(request)

    def submit(
        self, request: Request, *, priority: int = 0, deadline: float | None = None
    ) -> Ticket:
        """Queue a request, which shares its steps with others, and return its future at once.

        Its samples join the running batch at its next row, each as one that is drawn alone.

        Args:
            request: without a hook, and without an edit other than `inpaint`. Leave its arrays as
                they are until it has ended.
            priority: an integer; more goes first, whatever else waits.
            deadline: seconds from now, after which the request is given up. Once half of them have
                passed, it goes before others of its priority.

        Raises:
            UsageError: an argument has no meaning, or a request of this kind shares no steps.
            Busy: as many requests are waiting as may; see `scheduler`.
            ResourceError: it is more work than `max_work`.

        Examples:
            >>> ticket = model.submit(difftool.runtime.Request(program, n=1, seed=0))
            >>> bool((ticket.result() == model.sample(program, n=1, seed=0)).all())
            True
        """
        program = self._program(request)
        request.check(
            program, self.spec, in_graph=self._in_graph(request.edit), max_work=self.max_work
        )
        return self.scheduler().submit(request, program, priority=priority, deadline=deadline)

    def scheduler(self, settings: SchedulerSettings | None = None) -> Runner:
        """Return the runner of submitted requests; the first call starts it, with its settings.

        UsageError if it runs with other settings, or if the backend cannot share steps.
        """
        self._require_own_process()  # a fork may find the lock taken for ever
        with self._starting:
            if self._runner is None:
                if not isinstance(self.backend, OffersSlots):
                    raise UsageError(
                        f"{self.backend.name} shares no steps between requests",
                        "draw with `Model.sample`, or choose another `backend`",
                    )
                scheduler = Scheduler(
                    self.backend.slots,
                    self.spec,
                    self.backend.features,
                    self.max_batch,
                    settings or SchedulerSettings(),
                )
                self._runner = Runner(scheduler)
            elif settings not in (None, self._runner.settings):
                raise UsageError(
                    f"the scheduler runs with {self._runner.settings}", "set it up once"
                )
            return self._runner

    def run(self, request: Request) -> Iterator[State]:
        """Run a request that was made before, as `stream` runs the one that it makes."""
        self._require_own_process()
        program = self._program(request)
        request.check(
            program, self.spec, in_graph=self._in_graph(request.edit), max_work=self.max_work
        )
        states = self._states(request, program)
        return states if request.on_step is None else _watched(states, request.on_step)

    def _states(self, request: Request, program: Program) -> Iterator[State]:
        # When bits count, a sample's slot is its index modulo the batch: the sums of one slot are
        # not added up as those of another.
        ahead = request.first_sample % self.max_batch if request.deterministic else 0
        batch: Batch | None = None
        made: tuple[int, bytes] | None = None  # size and labels that the batch was made for
        for offset in range(-ahead, request.n, self.max_batch):
            begin, end = max(0, offset), min(request.n, offset + self.max_batch)
            size = self.max_batch if request.deterministic else end - begin
            positions = np.arange(offset, offset + size)
            slots = slice(begin - offset, end - offset)
            try:
                labels = request.labels_at(positions, self.spec)
                wanted = (size, b"" if labels is None else labels.of.tobytes())
                if batch is None or wanted != made:
                    batch, made = self.backend.batch(program, size, labels), wanted
                for step in self._rows(batch, request, program, positions):
                    yield State(step, len(program), request.first_sample + begin, batch, slots)
                    self._require_own_process()
            except MemoryError as error:
                raise no_memory(size) from error

    def _rows(
        self, batch: Batch, request: Request, program: Program, positions: NDArray[np.int64]
    ) -> Iterator[int]:
        """Run the samples at these positions in a batch, and yield the rows done."""
        within, edit = request.within(positions), request.edit
        known: Known | None = None
        if isinstance(edit, Inpaint) and self._in_graph(edit):
            known, edit = edit.at(within, self.spec.shape), None
        return run(
            batch,
            program,
            request.draws(positions, self.spec),
            init=request.init_at(positions, self.spec),
            known=known,
            edit=None if edit is None else lambda denoised: edit(denoised, within),
            every=request.every,
        )

    def _program(self, request: Request) -> Program:
        return self.default_program() if request.program is None else request.program

    def _in_graph(self, edit: Edit | None) -> bool:
        """Tell if the step graph itself makes this edit."""
        return isinstance(edit, Inpaint) and Feature.KNOWN in self.backend.features

    def _require_own_process(self) -> None:
        """Refuse a fork: it has none of a backend's threads, and would wait for them for ever."""
        if os.getpid() != self._process:
            raise UsageError(
                f"this model was loaded in process {self._process}, of which this is a fork",
                "load it in the child (which for torchscript is one of spawn)",
            )

    def _allocate(self, n: int) -> Floats:
        try:
            return np.empty((n, *self.spec.shape), np.float32)
        except (MemoryError, ValueError) as error:
            raise no_memory_for_samples(n) from error


def load(
    model: Bundle | Path | str = "ddpm-mnist",
    *,
    backend: str | None = None,
    precision: str = "fp32",
    threads: int | None = None,
    device: int = 0,
    max_batch: int | None = None,
    max_work: int = MAX_WORK,
    limits: Limits | None = None,
    trust: Collection[str] = (),
) -> Model:
    """Open a model: a bundle by its folder, by the name of a shipped model, or opened already.

    Args:
        model: the bundle.
        backend: by default the fastest that works here; see `difftool.runtime.backends.table`.
        precision: the number format of the network; `difftool quantize` adds int8 to a bundle.
            Without a `backend`, 16 bits run on a GPU or not at all.
        threads: those of a CPU; by default all cores.
        device: the number of the GPU, from 0, for a backend that runs on one.
        max_batch: how many samples run together; see `Model`.
        max_work: how many numbers one call may compute; see `Model`.
        limits: how large the bundle may be.
        trust: the sha256 of engines, TorchScript and packages made elsewhere that may run, though
            they are code.

    Raises:
        UsageError: the backend has no such precision or device.
        ArtefactError: the bundle is damaged, or lacks that precision.
        MissingDependencyError: the backend is not installed, or has no GPU or no engine to run.

    Examples:
        >>> model = difftool.load("ddpm-mnist")
        >>> program = difftool.samplers.ddim(model.spec, steps=3)
        >>> model.sample(program, n=2, seed=0).shape
        (2, 1, 28, 28)
    """
    bundle = open_bundle(model, limits=limits)
    opened = open_backend(
        bundle, backend, threads=threads, precision=precision, device=device, trusted=trust
    )
    _, precision = split_name(backend, precision)
    loaded = Model(bundle, opened, max_batch=max_batch, max_work=max_work, precision=precision)
    name = bundle.path.name if isinstance(model, Bundle) else model
    _log.info("%s: %s, %s, batches of %d", name, opened.name, precision, loaded.max_batch)
    return loaded


def _watched(states: Iterator[State], on_step: Hook) -> Iterator[State]:
    """Yield the states of a run, each after the hook has seen it."""
    for state in states:
        if on_step(state) is False:
            raise Cancelled(
                f"cancelled at step {state.step} of {state.steps}", "a hook returned False"
            )
        yield state


def _require_finite(state: State, program: str) -> None:
    if not np.isfinite(state.x).all():
        raise CheckFailed(
            f"a sample of {program} is not finite",
            "take smaller steps, or let difftool verify say which row went wrong",
        )
