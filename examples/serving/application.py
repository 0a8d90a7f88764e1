"""A FastAPI application that draws by itself, so that its requests share steps without a server.

fastapi run examples/serving/application.py
curl -o digit.png 'http://127.0.0.1:8000/digit.png?seed=7'
"""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response
from PIL import Image

import difftool
from difftool.runtime import Request as Draw
from difftool.runtime import Ticket

model = difftool.load("ddpm-mnist", max_batch=8)


@asynccontextmanager
async def lifespan(application: FastAPI) -> AsyncIterator[None]:
    """End the scheduler with the application: requests that run come to their end."""
    yield
    await asyncio.to_thread(model.scheduler().close)


app = FastAPI(lifespan=lifespan)


@app.get("/digit.png")
async def digit(request: Request, seed: int = 0, steps: int = 20) -> Response:
    """Draw one digit. Whoever disconnects frees its slot."""
    try:
        program = difftool.samplers.ddim(model.spec, steps=steps)
        ticket = model.submit(Draw(program, n=1, seed=seed), deadline=60.0)
    except difftool.errors.Busy as error:
        raise HTTPException(429, error.message, {"retry-after": "1"}) from error
    except difftool.errors.UsageError as error:
        raise HTTPException(400, error.message) from error
    samples = await unless_gone(request, ticket)
    pixels = difftool.to_uint8(samples, model.spec)[0, ..., 0]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return Response(file.getvalue(), media_type="image/png")


async def unless_gone(request: Request, ticket: Ticket) -> np.ndarray:
    """Wait for a ticket; cancel it if the client goes, which `receive` alone tells."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    drawing, leaving = asyncio.wrap_future(ticket), asyncio.create_task(gone())
    try:
        await asyncio.wait({drawing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not drawing.done():
            raise HTTPException(499, "the client has gone")
        return drawing.result()
    finally:  # also if this task is cancelled
        leaving.cancel()
        drawing.cancel()  # which cancels the ticket, unless it has ended
