"""The two ways to draw: pictures, as OpenAI's clients ask for them, and arrays."""

import base64
import io
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from difftool.diffusion import ModelSpec
from difftool.runtime import Previews, is_image, to_uint8
from difftool.serve.asked import AskedImages, AskedSamples, read
from difftool.serve.problems import Problem, as_problem
from difftool.serve.service import Drawn, Service

Floats = NDArray[np.float32]

_NPY: Final = "application/octet-stream"
_EVENT: Final = "image_generation"
_SEND_SECONDS: Final = 60.0  # for one event, to a client that reads none
_KEPT: Final = 8  # previews for a slow client, at least
_NO_TEXT: Final = "prompt: the model takes no text, so it was ignored"


async def images(service: Service, id: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer POST /v1/images/generations."""
    asked = await read(AskedImages, Request(scope, receive), service.settings)

    def check(name: str) -> None:
        spec = service.models[name].spec
        if not is_image(spec):
            raise Problem(400, "no-images", f"{name} draws no images", "use /v1/samples", "model")
        if asked.size not in (None, "auto", _size(spec)):
            raise Problem(400, "size", f"{name} draws {_size(spec)}", "leave size out", "size")

    previews = _previews(asked)
    if asked.stream:
        with service.streaming():
            async with service.drawing(asked, id, previews, check) as drawn:
                scope["drawn"] = drawn
                # Before the answer begins: who has its head misses no step from then on. A step
                # shows all samples that share it at once, and a slow client loses older ones.
                shown = drawn.ticket.stream(most=max(_KEPT, drawn.n)) if previews else None
                events = _events(drawn, shown, previews, asked.prompt)
                answer = EventSourceResponse(events, send_timeout=_SEND_SECONDS)
                await answer(scope, receive, send)
        return
    async with service.drawing(asked, id, check=check) as drawn:
        scope["drawn"] = drawn
        samples = await drawn.result(receive)
        body = await run_in_threadpool(_pictures, drawn, samples, asked.prompt)
    await Response(body, media_type="application/json")(scope, receive, send)


def _previews(asked: AskedImages) -> int:
    """Return how many previews of each image are asked for, by OpenAI's field or by ours."""
    field = "partial_images" if asked.previews is None else "previews"
    if asked.partial_images is not None and asked.previews is not None:
        text = "partial_images and previews mean the same"
        raise Problem(400, "invalid", text, "give one of them", field)
    found: int = getattr(asked, field) or 0
    if found and not asked.stream:
        raise Problem(400, "invalid", "previews need a stream", "set stream", field)
    return found


async def samples(service: Service, id: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer POST /v1/samples: JSON, or npy for who accepts it."""
    request = Request(scope, receive)
    asked = await read(AskedSamples, request, service.settings)
    binary = _NPY in request.headers.get("accept", "")
    async with service.drawing(asked, id) as drawn:
        scope["drawn"] = drawn
        found = await drawn.result(receive)
        body = await run_in_threadpool(_npy if binary else _numbers, drawn, found)
    headers = {"x-seed": str(drawn.seed)}
    kind = _NPY if binary else "application/json"
    await Response(body, headers=headers, media_type=kind)(scope, receive, send)


async def _events(
    drawn: Drawn, shown: Previews | None, previews: int, prompt: str | None
) -> AsyncIterator[Any]:
    """Yield up to `previews` estimates of each image, then all images, or the error."""
    spec, sent = drawn.model.spec, Counter[int]()
    common = {"size": _size(spec), "output_format": "png"}
    try:
        if shown is not None:
            async for seen in shown:
                if seen.step == seen.steps or sent[seen.sample] == previews:
                    continue
                picture = (await run_in_threadpool(_encoded, seen.array[None], spec))[0]
                yield _event(
                    "partial_image",
                    {
                        **common,
                        **drawn.record(),
                        "b64_json": picture,
                        "partial_image_index": sent[seen.sample],
                        "index": seen.sample - drawn.first_sample,
                        "step": seen.step,
                        "steps": seen.steps,
                    },
                )
                sent[seen.sample] += 1
        pictures = await run_in_threadpool(_encoded, await drawn.samples(), spec)
        for index, picture in enumerate(pictures):
            said = {**common, **drawn.record(), "index": index}
            said["warnings"] += _warnings(prompt)
            yield _event("completed", {**said, "b64_json": picture})
    except Exception as error:  # the status was sent long ago
        yield ServerSentEvent(json.dumps(as_problem(error).record(drawn.id)), event="error")


def _event(name: str, record: dict[str, Any]) -> ServerSentEvent:
    kind = f"{_EVENT}.{name}"
    said = {"type": kind, **record, "created_at": record["created"]}
    return ServerSentEvent(json.dumps(said), event=kind)


def _size(spec: ModelSpec) -> str:
    return f"{spec.shape[2]}x{spec.shape[1]}"


def _warnings(prompt: str | None) -> list[str]:
    return [_NO_TEXT] if prompt else []


def _encoded(samples: Floats, spec: ModelSpec) -> list[str]:
    """Return PNGs in base64."""
    from PIL import Image

    pictures = []
    for pixels in to_uint8(samples, spec):
        file = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "png")
        pictures.append(base64.b64encode(file.getvalue()).decode())
    return pictures


def _pictures(drawn: Drawn, samples: Floats, prompt: str | None) -> bytes:
    spec = drawn.model.spec
    data = [{"b64_json": picture} for picture in _encoded(samples, spec)]
    said = {**drawn.record(), "size": _size(spec), "output_format": "png", "data": data}
    said["warnings"] += _warnings(prompt)
    return json.dumps(said).encode()


def _numbers(drawn: Drawn, samples: Floats) -> bytes:
    said = {**drawn.record(), "shape": list(samples.shape), "samples": samples.tolist()}
    return json.dumps(said, allow_nan=False).encode()


def _npy(drawn: Drawn, samples: Floats) -> bytes:
    file = io.BytesIO()
    np.save(file, samples, allow_pickle=False)
    return file.getvalue()
