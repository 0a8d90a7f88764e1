"""A loaded bundle that draws samples. This is the embedding API."""

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from difftool.bundle import Bundle, Limits, read_bundle
from difftool.diffusion.features import Feature
from difftool.diffusion.program import MAX_ROWS, Program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError, Cancelled, CheckFailed, ResourceError, UsageError
from difftool.log import logger
from difftool.runtime.edits import Edit, Inpaint
from difftool.runtime.loop import run
from difftool.runtime.memory import no_memory
from difftool.runtime.opening import open_backend
from difftool.runtime.protocols import Backend, Batch, LikesBatches
from difftool.runtime.task import Task, labels_of, require_editable, require_uncoupled

Floats = NDArray[np.float32]

_log = logger(__name__)

_MODELS: Final = Path(__file__).parent.parent / "models"
# A default batch stays in a CPU's cache: so many numbers, and so many samples, since a network is
# wider than its points.
_BATCH_ELEMENTS: Final = 1 << 14
_BATCH_SAMPLES: Final = 1 << 10
_MAX_SAMPLES: Final = 1 << 32  # a sample's index is one 32-bit word of the noise counter
MAX_WORK: Final = 10**12  # samples x numbers of one x steps: most of a day on a GPU


@dataclass(frozen=True)
class State:
    """A run after `step` of `steps` evaluations of samples `first` .. `first` + N."""

    step: int
    steps: int
    first: int
    _batch: Batch
    _slots: slice  # those of the batch that are not padding

    @property
    def x(self) -> Floats:
        """The state, float32 [N, *S]: a read-only view that the next row overwrites."""
        return _read_only(self._batch.x[self._slots])

    @property
    def denoised(self) -> Floats:
        """The estimate of the clean samples, float32 [N, *S]: a view like `x`."""
        return _read_only(self._batch.denoised[self._slots])


Hook = Callable[[State], bool | None]


class Model:
    """A bundle opened on a backend.

    Any number of threads may sample one model at a time: a call has its own buffers, and its
    samples are those it would draw alone. A process that was forked after `load` loads its own.

    `max_batch` is the number of samples that run together; by default one that the backend likes
    best, or that keeps a batch in a CPU's cache. The samples do not depend on it but for rounding.
    `max_work` is how many numbers one call may compute: samples times their numbers times steps.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        *,
        max_batch: int | None = None,
        max_work: int = MAX_WORK,
    ) -> None:
        if max_batch is not None and max_batch < 1:
            raise UsageError(f"a batch of {max_batch}", "max_batch is at least 1")
        self.bundle = bundle
        self.backend = backend
        fitting = _BATCH_ELEMENTS // int(np.prod(bundle.spec.shape))
        cached = min(max(1, fitting), _BATCH_SAMPLES)
        best = backend.best_batch if isinstance(backend, LikesBatches) else cached
        self.max_batch = max_batch or best
        self.max_work = max_work
        self._process = os.getpid()

    @property
    def spec(self) -> ModelSpec:
        """What samplers need to know of the model."""
        return self.bundle.spec

    def default_program(self) -> Program:
        """The program the bundle was exported with."""
        return self.bundle.default_program()

    def sample(
        self,
        program: Program | None = None,
        *,
        n: int = 16,
        seed: int = 0,
        first_sample: int = 0,
        labels: ArrayLike | None = None,
        guidance_scale: float = 1.0,
        init: ArrayLike | None = None,
        edit: Edit | None = None,
        between: tuple[int, int] | None = None,
        deterministic: bool = False,
        on_step: Hook | None = None,
        every: int = 1,
    ) -> Floats:
        """Draw samples `first_sample` .. `first_sample + n` of a seed; float32 [n, *S].

        Args:
            labels: class labels, one for all or [n]; by default sample i has i modulo the classes.
                The label `spec.classes` says none.
            guidance_scale: of classifier-free guidance (Ho and Salimans 2021), 1 being none.
            init: clean data [*S] or [n, *S] to start from under the first row's noise, as in
                SDEdit (Meng et al. 2022): compile the program for `spec.up_to(strength)`.
            edit: revises the denoised estimate of every row; see `difftool.edits`.
            between: two sample indices; the n samples lead from one to the other, evenly on the
                arc between their noises (as Song et al. 2021a, appendix D.5, for all draws).
            deterministic: pad every batch to `max_batch`, and give a sample the same slot in it
                always. So it is the same bit for bit, whatever `n` and `first_sample` are. A
                program whose steps adapt to the whole batch is refused.
            on_step: called after `every` so many rows, and after the last; Cancelled is raised
                if it returns False.

        Raises:
            UsageError: an argument has no meaning, or this is a fork of the process that loaded.
            ResourceError: memory is short, and which `max_batch` to try; or it is more work than
                `max_work`.
            CheckFailed: a sample is not finite.
        """
        program = self.default_program() if program is None else program
        self._require_affordable(program, n)
        result = self._allocate(n)
        states = self.stream(
            program,
            n=n,
            seed=seed,
            first_sample=first_sample,
            labels=labels,
            guidance_scale=guidance_scale,
            init=init,
            edit=edit,
            between=between,
            deterministic=deterministic,
            every=every if on_step is not None else MAX_ROWS,
        )
        for state in states:
            if on_step is not None and on_step(state) is False:
                raise Cancelled(
                    f"cancelled at step {state.step} of {state.steps}", "a hook returned False"
                )
            if state.step == state.steps:
                _require_finite(state, program)
                offset = state.first - first_sample
                result[offset : offset + len(state.x)] = state.x
        return result

    def stream(
        self,
        program: Program | None = None,
        *,
        n: int = 16,
        seed: int = 0,
        first_sample: int = 0,
        labels: ArrayLike | None = None,
        guidance_scale: float = 1.0,
        init: ArrayLike | None = None,
        edit: Edit | None = None,
        between: tuple[int, int] | None = None,
        deterministic: bool = False,
        every: int = 1,
    ) -> Iterator[State]:
        """The same run, a State after `every` so many rows, batch after batch.

        Leaving the loop ends the run. On a device the rows between two states run without a stop.
        """
        self._require_own_process()
        program = self.default_program() if program is None else program
        if n < 1 or every < 1:
            raise UsageError(f"{n} samples, every {every} rows", "both are at least 1")
        self._require_affordable(program, n)
        if not 0 <= first_sample <= _MAX_SAMPLES - n:
            raise UsageError(f"first sample {first_sample}", f"indices are 0 to {_MAX_SAMPLES - 1}")
        if edit is not None:
            require_editable(program, in_graph=self._sets_known(edit))
        if deterministic:
            require_uncoupled(program)
        task = Task(
            program=program,
            n=n,
            seed=seed,
            first_sample=first_sample,
            labels=labels_of(self.spec, labels, guidance_scale, n, first_sample),
            init=None if init is None else np.asarray(init, np.float32),
            edit=edit,
            between=between,
        )
        return self._stream(task, deterministic, every)

    def _stream(self, task: Task, deterministic: bool, every: int) -> Iterator[State]:
        # When bits count, a sample's slot is its index modulo the batch: the sums of one slot are
        # not added up as those of another.
        ahead = task.first_sample % self.max_batch if deterministic else 0
        batch: Batch | None = None
        made: tuple[int, bytes] | None = None  # size and labels that the batch was made for
        for offset in range(-ahead, task.n, self.max_batch):
            begin, end = max(0, offset), min(task.n, offset + self.max_batch)
            size = self.max_batch if deterministic else end - begin
            positions = np.arange(offset, offset + size)
            try:
                labels = task.labels_at(positions)
                wanted = (size, b"" if labels is None else labels.of.tobytes())
                if batch is None or wanted != made:
                    batch, made = self.backend.batch(task.program, size, labels), wanted
                slots = slice(begin - offset, end - offset)
                for step in self._run(batch, task, positions, every):
                    yield State(step, len(task.program), task.first_sample + begin, batch, slots)
                    self._require_own_process()
            except MemoryError as error:
                raise no_memory(size) from error

    def _run(
        self, batch: Batch, task: Task, positions: NDArray[np.int64], every: int
    ) -> Iterator[int]:
        """Run the samples at these positions in a batch; yields rows done."""
        shape = self.spec.shape
        init = task.init_at(positions, (len(positions), *shape))
        draws, within, edit = task.draws(positions, shape), task.within(positions), task.edit
        if edit is None:
            return run(batch, task.program, draws, init=init, every=every)
        if isinstance(edit, Inpaint) and self._sets_known(edit):
            known = edit.at(within, np.empty((len(positions), *shape), np.float32))
            return run(batch, task.program, draws, init=init, known=known, every=every)
        return run(
            batch, task.program, draws, init=init, edit=lambda d: edit(d, within), every=every
        )

    def _require_affordable(self, program: Program, n: int) -> None:
        """Before anything is allocated: a slip of the hand is not to take the machine down."""
        work = n * int(np.prod(self.spec.shape, dtype=object)) * len(program)
        if work > self.max_work:
            raise ResourceError(
                f"{n} samples of {len(program)} steps are {work} numbers; "
                f"{self.max_work} are allowed",
                f"draw fewer at a time, or raise max_work: --max-work {work}",
            )

    def _require_own_process(self) -> None:
        """A fork copies none of a backend's threads: a run would wait for them for ever."""
        if os.getpid() != self._process:
            raise UsageError(
                f"this model was loaded in process {self._process}, of which this is a fork",
                "load it in the child (which for torchscript is one of spawn)",
            )

    def _sets_known(self, edit: Edit) -> bool:
        """Whether the step graph itself does this edit."""
        return isinstance(edit, Inpaint) and Feature.KNOWN in self.backend.features

    def _allocate(self, n: int) -> Floats:
        if n < 1:
            raise UsageError(f"{n} samples", "draw at least 1")
        try:
            return np.empty((n, *self.spec.shape), np.float32)
        except (MemoryError, ValueError) as error:
            raise ResourceError(
                f"no memory for {n} samples", f"draw {max(1, n // 2)} at a time"
            ) from error


def shipped_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(folder.name for folder in _MODELS.glob("[!.]*/")) if _MODELS.is_dir() else []


def load(
    model: Path | str = "ddpm-mnist",
    *,
    backend: str | None = None,
    precision: str = "fp32",
    threads: int | None = None,
    max_batch: int | None = None,
    max_work: int = MAX_WORK,
    limits: Limits | None = None,
    trust: Collection[str] = (),
) -> Model:
    """Open a bundle, given by its folder or by the name of a shipped model.

    `backend` is the fastest that works here by default; see `difftool.runtime.backends.table`.
    `precision` is what the network computes in; int8 is what `difftool quantize` adds to a bundle.
    ArtefactError if the bundle is damaged or lacks that precision, MissingDependencyError if
    the backend is not installed, or has no GPU or no engine to run. `trust` are the sha256 of
    engines and TorchScript made elsewhere that may run: both are code. `limits` are how large the
    bundle may be, `max_work` how many numbers a call may compute.
    """
    bundle = read_bundle(find_bundle(model), limits=limits)
    opened = open_backend(bundle, backend, threads=threads, precision=precision, trusted=trust)
    loaded = Model(bundle, opened, max_batch=max_batch, max_work=max_work)
    _log.info("%s: %s, %s, batches of %d", model, opened.name, precision, loaded.max_batch)
    return loaded


def find_bundle(model: Path | str) -> Path:
    """The folder of a bundle given by path or shipped name."""
    if isinstance(model, str) and model in shipped_models():
        return _MODELS / model
    if not Path(model).exists():
        raise ArtefactError(
            f"no bundle at {model}, and no shipped model of that name",
            f"shipped: {', '.join(shipped_models()) or 'none'}",
            code="bundle-missing",
        )
    return Path(model)


def _require_finite(state: State, program: Program) -> None:
    if not np.isfinite(state.x).all():
        raise CheckFailed(
            f"a sample of {program.name} is not finite",
            "take smaller steps, or let difftool verify say which row went wrong",
        )


def _read_only(array: Floats) -> Floats:
    view = array.view()
    view.flags.writeable = False
    return view
