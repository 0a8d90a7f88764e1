"""A bundle in Triton's Python backend: each instance is a process with one step scheduler."""

import asyncio
import json
import secrets
import threading
from collections import Counter
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from difftool.errors import UsageError
from difftool.runtime import Model, Previews, Request, SchedulerSettings, load
from difftool.serve.asked import AskedPreviews, AskedTensors
from difftool.serve.problems import as_problem, cancelled
from difftool.serve.service import Disconnected, Drawn, Service
from difftool.serve.settings import ServeSettings
from difftool.serve.triton.metrics import Metrics
from difftool.serve.triton.tensors import guard_texts, make_tensors, read_fields

_LOOK: Final = 0.02  # seconds until a request is asked again if its client has cancelled it
_TELL: Final = 1.0  # seconds until the metrics of what runs are renewed
_END: Final = 10.0  # seconds that the last step may take when Triton unloads the model
# A model's parameters in config.pbtxt, with the arguments of what they set.
_LOADING: Final = {
    "backend": str,
    "precision": str,
    "threads": int,
    "max_batch": int,
}
_LIMITS: Final = {"max_n": int, "max_steps": int, "max_work": int, "deadline": float}
_SCHEDULING: Final = {"batching": str, "queue": int, "slots": int}
_SAID: Final = ("bundle_digest",)  # for who reads the configuration
_CODES: Final = {
    400: "INVALID_ARG",
    404: "NOT_FOUND",
    422: "INVALID_ARG",
    429: "UNAVAILABLE",
    499: "CANCELLED",
    503: "UNAVAILABLE",
    504: "UNAVAILABLE",
}


class TritonPythonModel:
    """What Triton's Python backend calls; `difftool compile --triton` writes a folder that has it.

    Requests become those of the step scheduler, with the fields and limits of `difftool serve`. A
    thread of its own answers them, so that Triton can hand over the next one at once.
    """

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the bundle beside the model's file, and run a step of a whole batch."""
        import triton_python_backend_utils as pb

        self._pb = pb
        guard_texts(pb)
        config = json.loads(args["model_config"])
        self._decoupled = pb.using_decoupled_model_transaction_policy(config)
        said = {name: each["string_value"] for name, each in config["parameters"].items()}
        loading, limits, scheduling = _settings(said)
        if args["model_instance_kind"] == "GPU":
            loading["device"] = int(args["model_instance_device_id"])
        else:
            loading.setdefault("backend", "onnxruntime-cpu")
        folder = Path(args["model_repository"], args["model_version"], "bundle")
        model = load(folder, **loading)
        runner = model.scheduler(SchedulerSettings(**scheduling))
        _warm_up(model)
        self._service = Service({args["model_name"]: model}, ServeSettings(**limits))
        labels = {"model": args["model_name"], "instance": args["model_instance_name"]}
        self._metrics = Metrics(pb, runner, labels)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="difftool-triton", daemon=True)
        self._thread.start()

    def execute(self, requests: list[Any]) -> None:
        """Take requests; each is answered when it has ended, and maybe shown before."""
        for request in requests:
            sender = request.get_response_sender()
            try:  # now, as the request's memory is gone after this call
                found: dict[str, Any] | Exception = read_fields(request)
            except Exception as error:
                found = error
            asyncio.run_coroutine_threadsafe(self._answer(sender, found), self._loop)

    def finalize(self) -> None:
        """End what is on its way; Triton itself waits for requests before it calls this."""
        self._service.cancel_all()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_END)
        self._service.close()

    def _run(self) -> None:
        telling = self._loop.create_task(self._tell())
        self._loop.run_forever()
        tasks = {telling, *asyncio.all_tasks(self._loop)}
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _tell(self) -> None:
        while True:
            self._metrics.tell()
            await asyncio.sleep(_TELL)

    async def _answer(self, sender: Any, found: dict[str, Any] | Exception) -> None:
        """Send the last response of a request, whatever comes of it: Triton waits for that."""
        pb = self._pb
        try:
            if isinstance(found, Exception):
                raise found
            arrays = await self._drawn(sender, found)
            answer = pb.InferenceResponse(make_tensors(pb, arrays))
        except Exception as error:
            gone = isinstance(error, Disconnected)
            problem = cancelled() if gone else as_problem(error)
            code = getattr(pb.TritonError, _CODES.get(problem.status, "INTERNAL"))
            answer = pb.InferenceResponse(error=pb.TritonError(problem.line(), code))
        self._metrics.tell()
        sender.send(answer, flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    async def _drawn(self, sender: Any, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the samples of a request, and their seed, unless its client has cancelled it."""
        kind = AskedPreviews if self._decoupled else AskedTensors
        asked = kind.model_validate(fields)
        previews = asked.previews if isinstance(asked, AskedPreviews) else 0
        async with self._service.drawing(asked, secrets.token_hex(16), previews) as drawn:
            showing: asyncio.Task[None] | None = None
            if previews:
                # Before anything else is awaited, so that hardly a step is missed.
                shown = drawn.ticket.stream(most=previews * drawn.n)
                showing = asyncio.create_task(self._show(sender, drawn, shown, previews))
            samples = await drawn.result(_cancel_of(sender))
            if showing is not None:
                await showing
            return {"samples": samples, "seed": np.array([drawn.seed], np.uint64)}

    async def _show(self, sender: Any, drawn: Drawn, shown: Previews, most: int) -> None:
        """Send up to `most` estimates of each sample, before the last step."""
        sent = Counter[int]()
        async for seen in shown:
            if seen.step == seen.steps or sent[seen.sample] == most:
                continue
            sent[seen.sample] += 1
            numbers = {"sample": seen.sample - drawn.first_sample, "step": seen.step}
            arrays = {name: np.array([number], np.int64) for name, number in numbers.items()}
            tensors = make_tensors(self._pb, {"preview": seen.array, **arrays})
            sender.send(self._pb.InferenceResponse(tensors))


def _cancel_of(sender: Any) -> Any:
    """Return what waits until a client cancels its request, and then says so as ASGI would.

    Triton tells nobody: one has to ask.
    """

    async def receive() -> MutableMapping[str, Any]:
        while not sender.is_cancelled():
            await asyncio.sleep(_LOOK)
        return {"type": "http.disconnect"}

    return receive


def _settings(said: Mapping[str, str]) -> tuple[dict[str, Any], ...]:
    """Return what a model's parameters set: how it is loaded, its limits, and its scheduler."""
    tables = _LOADING, _LIMITS, _SCHEDULING
    known = [name for table in tables for name in table]
    for name in said:
        if name not in (*known, *_SAID):
            raise UsageError(f"there is no parameter {name!r}", f"one of: {', '.join(known)}")
    return tuple(
        {name: _typed(name, kind, said[name]) for name, kind in table.items() if name in said}
        for table in tables
    )


def _typed(name: str, kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"the parameter {name} is {text[:40]!r}", "give a number") from None


def _warm_up(model: Model) -> None:
    """Run a step of a whole batch, in a scheduler that is not counted."""
    other = Model(model.bundle, model.backend, max_batch=model.max_batch)
    shown = other.submit(Request(n=model.max_batch)).stream()
    next(shown, None)
    other.scheduler().close(drain=False, timeout=_END)
