"""The pictures and arrays of a request: what samples start from, and what is known of them."""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftool.data.images import decode, prepared
from difftool.diffusion import Feature, ModelSpec
from difftool.errors import UsageError
from difftool.runtime import Edit, Model, edits
from difftool.serve.asked import Asked, Values
from difftool.serve.problems import Problem

Floats = NDArray[np.float32]


def read_inputs(asked: Asked, model: Model) -> tuple[Floats | None, Edit | None]:
    """Return what the samples start from, and the edit that keeps what is known of them.

    Problem if one is not of the model's shape, if it lacks its partner, or if the model's step
    graph cannot keep values.
    """
    for one, other in (("init", "strength"), ("strength", "init"), ("known", "mask")):
        if getattr(asked, one) is not None and getattr(asked, other) is None:
            raise _refused(one, f"there is no {other}", f"give {other}, or leave {one} out")
    if asked.mask is not None and asked.known is None:
        raise _refused("mask", "there is no known", "give known, or leave mask out")
    spec, n = model.spec, asked.n
    init = None if asked.init is None else _values("init", asked.init, n, spec)
    if asked.known is None or asked.mask is None:
        return init, None
    if Feature.KNOWN not in model.backend.features:
        hint = "export the model again, `--with known`"
        raise _refused("known", "this model's step graph keeps no values", hint)
    known = _values("known", asked.known, n, spec)
    mask = _values("mask", asked.mask, n, spec)
    if mask.min() < 0 or mask.max() > 1:
        raise _refused("mask", "it has values outside 0 .. 1", "1 is known, 0 is not")
    return init, edits.inpaint(known, mask)


def _values(field: str, value: Values, n: int, spec: ModelSpec) -> Floats:
    """Return a field's numbers: [*S] from a picture, and else [*S] or [n, *S]."""
    if isinstance(value, str):
        return _picture(field, value, spec)
    hint = f"give finite numbers of shape {list(spec.shape)} or {[n, *spec.shape]}"
    if isinstance(value, list) and not _is_numbers(value):  # numpy would read words, too
        raise _refused(field, "it holds more than numbers", hint)
    try:
        with np.errstate(over="ignore"):
            values = np.array(value, np.float32)
    except (ValueError, OverflowError) as error:
        raise _refused(field, "its lists differ in length, or numbers are huge", hint) from error
    if values.shape not in (spec.shape, (n, *spec.shape)):
        raise _refused(field, f"its shape is {list(values.shape)}", hint)
    if not np.isfinite(values).all():
        raise _refused(field, "a number is not finite in float32", hint)
    return values


def _picture(field: str, text: str, spec: ModelSpec) -> Floats:
    """Return the numbers [*S] of a PNG in base64; a mask is grey, and holds for all channels.

    Nothing is scaled, so that what is known stays as it was sent.
    """
    channels, height, width = spec.shape
    channels = 1 if field == "mask" else channels
    hint = f"send a PNG of {width}x{height} pixels, {_kind(channels)}, in base64"
    try:
        data = base64.b64decode(text, validate=True)
        pixels = decode(data, "it", (width, height), None, exact=True)
    except UsageError as error:
        raise _refused(field, error.message, hint) from error
    except Exception as error:  # Pillow's decoders may raise anything
        raise _refused(field, "it is no whole PNG in base64", hint) from error
    if pixels.shape != (channels, height, width):
        raise _refused(field, f"it is {_kind(len(pixels))}", hint)
    if field == "mask":
        return np.broadcast_to(prepared(pixels, (0.0, 1.0)), spec.shape)
    return prepared(pixels, spec.data_range)


def _kind(channels: int) -> str:
    return "grey (L)" if channels == 1 else "colour (RGB)"


def _is_numbers(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_numbers, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refused(field: str, text: str, hint: str) -> Problem:
    return Problem(400, "invalid-field", f"{field}: {text}", hint, field)
