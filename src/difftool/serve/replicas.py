"""The server as a deployment of Ray Serve: many replicas, behind one address.

Each replica is a process that holds all models. It answers by the application of
`difftool.serve`, so all routes are the same.
"""

import logging
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from difftool.alone import ray_serve
from difftool.errors import ResourceError
from difftool.runtime import Model, SchedulerSettings, load
from difftool.serve import described
from difftool.serve.application import Application
from difftool.serve.autoscaling import QueueWait
from difftool.serve.server import read_keys
from difftool.serve.settings import ServeSettings

NAME: Final = "difftool"  # of the deployment

_BATCHES: Final = 4  # of samples on their way
_SPARE: Final = 16  # requests beside those that draw: probes, cancels, those that are refused
_ASKING: Final = 10.0  # seconds that the other replicas have to answer
_LAST_ANSWERS: Final = 10.0  # seconds to send what is done
_Count = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(gt=0)]


class RayArguments(BaseModel):
    """The arguments of `on_ray`, as they stand under `args` in a file of Ray Serve.

    - `models`: names, and for each the folder of a bundle or the name of a shipped model. All
      machines need them at the same place
    - `min_replicas`, `max_replicas`: how many processes draw
    - `wait`: seconds that requests may wait to begin; if it is more, replicas are added
    - `cpus`, `gpus`: what a replica takes of a machine. It has `threads` threads, by default `cpus`
    - `max_batch`: the samples that share a step; `queue`, `batching`: as in `SchedulerSettings`
    - `backend`, `precision`, `trust`: as in `difftool.load`
    - `api_key_file`: a file of keys, one a line, at the same place on all machines
    - `max_n`, `max_steps`, `max_work`, `max_body`, `deadline`: limits of a request, as in
      `ServeSettings`. `hang`: seconds after which a step that has not ended makes Ray replace the
      replica
    - `drain`: seconds that running requests get when a replica ends
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: Annotated[dict[str, str], Field(min_length=1)]
    min_replicas: _Count = 1
    max_replicas: _Count = 1
    wait: _Seconds = 1.0
    cpus: _Count = 1
    gpus: Annotated[float, Field(ge=0)] = 0.0
    threads: _Count | None = None
    max_batch: _Count = 16
    queue: _Count = 64
    batching: Literal["step", "request", "off"] = "step"
    backend: str | None = None
    precision: str = "fp32"
    trust: tuple[str, ...] = ()
    api_key_file: str | None = None
    max_n: _Count = ServeSettings.max_n
    max_steps: _Count = ServeSettings.max_steps
    max_work: _Count = ServeSettings.max_work
    max_body: _Count = ServeSettings.max_body
    deadline: _Seconds = ServeSettings.deadline
    hang: _Seconds = ServeSettings.hang
    drain: _Seconds = 30.0


def on_ray(arguments: RayArguments) -> Any:
    """Return the application for Ray Serve, which `serve run` and `serve deploy` call this for.

    The deployment is called "difftool". A file of Ray Serve may set more of its options.

    Raises:
        MissingDependencyError: ray[serve] is not installed.

    Examples:
        >>> from difftool.serve import RayArguments, on_ray
        >>> arguments = RayArguments(models={"digits": "ddpm-mnist"}, max_replicas=2)
        >>> application = on_ray(arguments)    # ray.serve.run(application)
    """
    serve = ray_serve()
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name=NAME,
        max_ongoing_requests=_most_ongoing(arguments),
        graceful_shutdown_timeout_s=arguments.drain + _LAST_ANSWERS,
        ray_actor_options={"num_cpus": arguments.cpus, "num_gpus": arguments.gpus},
        autoscaling_config={
            "min_replicas": arguments.min_replicas,
            "max_replicas": arguments.max_replicas,
            "policy": {"policy_function": QueueWait, "policy_kwargs": {"wait": arguments.wait}},
        },
    )
    return deployment.bind(arguments)


class Replica:
    """A process that draws.

    All methods are coroutines, as Ray may call others in threads, and the service has one thread.
    """

    def __init__(self, arguments: RayArguments) -> None:
        _log_as_ray_does()
        models = {name: _opened(path, arguments) for name, path in arguments.models.items()}
        self._application = Application(models, _limits(arguments), elsewhere=_cancel_elsewhere)
        self._service = self._application.service
        assert self._service.runners  # they run before the first request comes

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return _without_id(self._application)

    async def check_health(self) -> None:
        """Raise ResourceError if a step hangs; Ray then starts another replica."""
        for name, runner in self._service.runners.items():
            if not runner.healthy(self._service.settings.hang):
                raise ResourceError(f"{name} has stopped", "a step takes too long")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what `QueueWait` decides by."""
        loads = [runner.load for runner in self._service.runners.values()]
        busy = max(min(1.0, load.running / load.max_batch) for load in loads)
        return {"wait": self._service.longest_wait(), "busy": busy}

    async def cancel(self, id: str) -> bool | None:
        """Cancel a request: see `Service.cancel`, but None if this replica has no such request."""
        return self._service.cancel(id) if self._service.has(id) else None

    async def status(self) -> dict[str, Any]:
        """Return what /v1/status says of this replica."""
        return described.status(self._service)


def _scheduling(asked: RayArguments) -> SchedulerSettings:
    slots = _BATCHES * asked.max_batch
    return SchedulerSettings(batching=asked.batching, queue=asked.queue, slots=slots)


def _most_ongoing(asked: RayArguments) -> int:
    """Return how many requests Ray gives a replica: so many that it refuses the next one itself.

    Requests of one sample fill all slots and the queue of each model. Ray would let those wait in
    its proxies, where no deadline counts and nobody can cancel them.
    """
    return len(asked.models) * (_BATCHES * asked.max_batch + asked.queue) + _SPARE


def _limits(asked: RayArguments) -> ServeSettings:
    return ServeSettings(
        max_n=asked.max_n,
        max_steps=asked.max_steps,
        max_work=asked.max_work,
        max_body=asked.max_body,
        deadline=asked.deadline,
        hang=asked.hang,
        keys=() if asked.api_key_file is None else read_keys(Path(asked.api_key_file)),
    )


def _opened(path: str, arguments: RayArguments) -> Model:
    model = load(
        path,
        backend=arguments.backend,
        precision=arguments.precision,
        threads=arguments.threads or arguments.cpus,
        max_batch=arguments.max_batch,
        trust=arguments.trust,
    )
    model.scheduler(_scheduling(arguments))
    return model


async def _cancel_elsewhere(id: str) -> bool | None:
    """Ask all replicas to cancel a request; None if it is on its way in none."""
    serve = ray_serve()
    here = serve.get_replica_context()
    handle = serve.get_deployment_handle(here.deployment, here.app_name)
    asked = handle.broadcast("cancel", id)
    said = await asked.results_async(timeout_s=_ASKING, return_exceptions=True)
    return next((each for each in said if isinstance(each, bool)), None)


def _without_id(application: ASGIApp) -> ASGIApp:
    """Leave the id of a request out of its answer's head, where Ray's proxy adds the same."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [each for each in message["headers"] if each[0] != b"x-request-id"]
                message = {**message, "headers": headers}
            await send(message)

        await application(scope, receive, sending)

    return answer


def _log_as_ray_does() -> None:
    """Write a line for each request into the log of the replica."""
    log = logging.getLogger("difftool.serve")
    log.setLevel(logging.INFO)
    for handler in logging.getLogger("ray.serve").handlers:
        log.addHandler(handler)
