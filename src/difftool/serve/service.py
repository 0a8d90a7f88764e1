"""The models of a server, and the requests that are on their way in them."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive

from difftool.diffusion import Program, SamplerCall, caveats, compile_program
from difftool.errors import Busy, ResourceError
from difftool.runtime import Model, Request, Runner, Ticket
from difftool.serve.asked import Asked
from difftool.serve.inputs import read_inputs
from difftool.serve.problems import Problem, cancelled, not_ready
from difftool.serve.settings import ServeSettings

Floats = NDArray[np.float32]

_SEEDS: Final = 1 << 53  # of what is given out: JavaScript's numbers hold them, too


class Disconnected(Exception):
    """The client has gone; there is nobody to answer."""


@dataclass(eq=False)
class Drawn:
    """A request that was admitted; `warnings` say why its samples may be poor."""

    id: str
    name: str
    model: Model
    program: Program
    seed: int
    first_sample: int
    n: int
    strength: float | None
    ticket: Ticket
    since: float
    warnings: tuple[str, ...] = ()

    async def result(self, receive: Receive) -> Floats:
        """Wait for the samples [n, *S], or raise what came instead.

        A server tells that a client has gone by `receive` alone, so this watches it.
        """
        gone = asyncio.create_task(_gone(receive))
        samples = asyncio.create_task(self.samples())
        try:
            await asyncio.wait({samples, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not samples.done():
                self.ticket.cancel()
                await asyncio.wait({samples})
                samples.exception()  # nobody is there to hear of it
                raise Disconnected
            return samples.result()
        finally:
            gone.cancel()
            samples.cancel()

    async def samples(self) -> Floats:
        """Wait for the samples [n, *S], or raise what came instead."""
        await asyncio.wait({(future := asyncio.wrap_future(self.ticket))})
        if self.ticket.cancelled():
            raise cancelled()
        return future.result()

    def record(self) -> dict[str, Any]:
        """Return what an answer says beside its samples; all that is needed to draw them again."""
        now, began = time.monotonic(), self.ticket.began
        return {
            "id": self.id,
            "created": int(time.time()),
            "model": self.name,
            "bundle": self.model.bundle.manifest.digest,
            "program": str(self.program.call),
            "seed": self.seed,
            "first_sample": self.first_sample,
            "n": self.n,
            **({} if self.strength is None else {"strength": self.strength}),
            "seconds": round(now - self.since, 6),
            "queue_seconds": round((now if began is None else began) - self.since, 6),
            "warnings": list(self.warnings),
        }


class Service:
    """Models by their names. Only the event loop's thread uses this, but for `_submit`."""

    def __init__(self, models: Mapping[str, Model], settings: ServeSettings) -> None:
        self.models, self.settings = dict(models), settings
        self.draining = False
        self.since = time.monotonic()
        self._streams = 0
        self._tickets: dict[str, Ticket | None] = {}  # None until it is submitted
        self._asked_at: dict[str, float] = {}
        self._ended = False
        self._idle = asyncio.Event()

    @cached_property
    def runners(self) -> dict[str, Runner]:
        """Return each model's scheduler, which runs from now on."""
        return {name: model.scheduler() for name, model in self.models.items()}

    def find(self, name: str | None) -> str:
        """Return the name of the model that is asked for; it may be left out if there is one."""
        if name is None and len(self.models) == 1:
            return next(iter(self.models))
        if name not in self.models:
            raise Problem(
                404 if name else 400,
                "no-such-model",
                "there is no such model" if name else "which model?",
                f"one of: {', '.join(self.models)}",
                "model",
            )
        return name

    def replace(self, name: str, model: Model) -> None:
        """Draw with another model from now on.

        Requests that are on their way end on the old one, which nothing keeps after the last.
        """
        self.runners[name] = model.scheduler()
        self.models[name] = model

    def require_ready(self, names: tuple[str, ...] = ()) -> None:
        """Raise Problem if models, by default all, can draw nothing at the moment."""
        if self.draining:
            raise not_ready("the server is going to end")
        for name in names or self.models:
            if not self.runners[name].healthy(self.settings.hang):
                raise not_ready(f"{name} has stopped")

    @asynccontextmanager
    async def drawing(
        self,
        asked: Asked,
        id: str,
        previews: int = 0,
        check: Callable[[str], None] = lambda _: None,
    ) -> AsyncIterator[Drawn]:
        """Queue a request for the time of the block. Leaving that cancels what has not ended.

        `check` may refuse a model by its name. About `previews` rows on the way are shown.
        """
        name = self.find(asked.model)
        self.require_ready((name,))
        check(name)
        if id in self._tickets:
            raise Problem(400, "id-in-use", "another request has this id", "choose a new one")
        self.runners[name].require_room()  # a refusal must cost little
        since = self._asked_at[id] = time.monotonic()
        self._tickets[id] = None
        try:
            seed = _seed_of(id) if asked.seed is None else asked.seed
            submit = partial(self._submit, self.models[name], asked, seed, previews)
            program, warnings, ticket = await run_in_threadpool(submit)
            self._tickets[id] = ticket
            if self._ended:
                ticket.cancel()
            try:
                yield Drawn(
                    id=id,
                    name=name,
                    model=self.models[name],
                    program=program,
                    seed=seed,
                    first_sample=asked.first_sample,
                    n=asked.n,
                    strength=asked.strength,
                    ticket=ticket,
                    since=since,
                    warnings=warnings,
                )
            finally:
                ticket.cancel()
        finally:
            del self._tickets[id], self._asked_at[id]
            if not self._tickets:
                self._idle.set()

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Count a stream of events for the time of the block; Problem if there are too many."""
        if self._streams >= self.settings.streams:
            raise Problem(429, "busy", "too many streams are open", "try again later")
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    def has(self, id: str) -> bool:
        """Tell if a request can be cancelled."""
        return self._tickets.get(id) is not None

    def longest_wait(self) -> float:
        """Return the seconds that a request has waited which has not begun; 0 if there is none."""
        now = time.monotonic()
        waits = [
            now - self._asked_at[id]
            for id, ticket in self._tickets.items()
            if ticket is None or (ticket.began is None and not ticket.done())
        ]
        return max(waits, default=0.0)

    def cancel(self, id: str) -> bool:
        """Cancel a request; False if it has just ended. Problem if there is none with this id."""
        if (ticket := self._tickets.get(id)) is None:
            raise Problem(404, "no-such-request", "no such request is on its way", "it has ended")
        return ticket.cancel()

    async def drain(self, timeout: float) -> None:
        """Refuse new requests, and wait for the others; cancel those that take longer."""
        self.draining = True
        self._idle.clear()
        if self._tickets:
            try:
                async with asyncio.timeout(timeout):
                    await self._idle.wait()
            except TimeoutError:
                self.cancel_all()

    def cancel_all(self) -> None:
        """Cancel all requests, and those that are about to be queued."""
        self._ended = True
        for ticket in self._tickets.values():
            if ticket is not None:
                ticket.cancel()

    def close(self) -> None:
        """End the schedulers after their current steps."""
        for runner in self.runners.values():
            runner.close(drain=False, timeout=10.0)

    def _submit(
        self, model: Model, asked: Asked, seed: int, previews: int
    ) -> tuple[Program, tuple[str, ...], Ticket]:
        """Compile the program and queue the request; this takes too long for the event loop."""
        program = self._compile(model, asked)
        spec = model.spec.up_to(asked.strength or 1.0)
        warnings = caveats(program, spec, model.default_program())
        init, edit = read_inputs(asked, model)
        request = Request(
            program,
            n=asked.n,
            seed=seed,
            first_sample=asked.first_sample,
            labels=asked.labels,
            guidance_scale=asked.guidance_scale,
            init=init,
            edit=edit,
            every=max(1, len(program) // (previews + 1)),
        )
        seconds = min(asked.deadline or self.settings.deadline, self.settings.deadline)
        try:
            return program, warnings, model.submit(request, deadline=seconds)
        except Busy:
            raise
        except ResourceError as error:
            raise Problem(422, "too-much", error.message, error.hint) from error

    def _compile(self, model: Model, asked: Asked) -> Program:
        limits = self.settings
        _limit("n", asked.n, limits.max_n)
        arguments = dict(asked.sampler_arguments)
        if asked.num_inference_steps is not None:
            if "steps" in arguments:
                text = "sampler_arguments: steps is num_inference_steps, which was given, too"
                raise Problem(400, "invalid", text, "give one of them", "sampler_arguments")
            arguments["steps"] = asked.num_inference_steps
        spec = model.spec.up_to(asked.strength or 1.0)
        own = model.bundle.manifest.program.call
        own = own.shortened(len(spec.schedule), len(model.spec.schedule))
        call = own.changed_by(SamplerCall(asked.sampler or "", arguments))
        # Before the table is made, whose size it usually is.
        steps = call.arguments.get("steps")
        _limit("num_inference_steps", steps if isinstance(steps, int) else 0, limits.max_steps)
        program = compile_program(spec, call)
        _limit("num_inference_steps", len(program), limits.max_steps)
        work = asked.n * len(program) * int(np.prod(spec.shape))
        _limit("n", work, limits.max_work, " samples times steps times numbers")
        return program


def _seed_of(id: str) -> int:
    """Return the seed of a request that has none.

    Who sends a request again with its id, after a server was lost, gets the same samples.
    """
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:8]) % _SEEDS


def _limit(field: str, value: int, most: int, what: str = "") -> None:
    if value > most:
        text = f"{field}: {value}{what} are more than {most}"
        raise Problem(422, "too-much", text, "ask for less at a time", field)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
