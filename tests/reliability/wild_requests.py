"""Bytes that no client of HTTP would send: whole requests, and what can become of them."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

CLOSE: Final = b"connection: close\r\n"
EVIL: Final = b"x-evil"  # a header that a server must never say
_ENDS: Final = ("close", "reset", "half", "wait", "wait")
_BODY: Final = {"n": 1, "num_inference_steps": 2, "sampler": "ddim", "seed": 1}
_PATHS: Final = ("/v1/samples", "/v1/images/generations", "/v2/models/small/infer")


@dataclass(frozen=True)
class Wild:
    """Bytes to send, in pieces, and what is done then."""

    kind: str
    pieces: tuple[bytes, ...]
    end: str
    """What is done behind them: `close`, `reset`, `half` (nothing more is sent), or `wait`."""

    def __repr__(self) -> str:
        return f"{self.kind}, {self.end}: {b'|'.join(self.pieces)[:300]!r}"


def wild_requests(count: int, seed: int = 0) -> list[Wild]:
    """Return so many, of all kinds alike."""
    rng = random.Random(seed)
    return [_KINDS[index % len(_KINDS)](rng) for index in range(count)]


def request(
    path: str = "/v1/samples", body: bytes = b"", headers: tuple[bytes, ...] = (), size: str = ""
) -> bytes:
    """Return a request with a body, of the size that it has or is said to have."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: small\r\ncontent-type: application/json\r\n"
        f"content-length: {size or len(body)}\r\n"
    )
    return head.encode() + CLOSE + b"".join(each + b"\r\n" for each in headers) + b"\r\n" + body


def _good(rng: random.Random) -> bytes:
    path = rng.choice(_PATHS)
    body = {"parameters": _BODY} if path.startswith("/v2") else {**_BODY}
    if path.endswith("generations") and rng.random() < 0.5:
        body |= {"stream": True, "partial_images": 1}
    return request(path, json.dumps(body).encode())


def _pieces(rng: random.Random, data: bytes) -> tuple[bytes, ...]:
    cuts = sorted(rng.sample(range(len(data) + 1), min(len(data), rng.randrange(4))))
    return tuple(data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True))


def _wild(rng: random.Random, kind: str, data: bytes, *ends: str) -> Wild:
    return Wild(kind, _pieces(rng, data), rng.choice(ends or _ENDS))


def _truncated(rng: random.Random) -> Wild:
    data = _good(rng)
    return _wild(rng, "truncated", data[: rng.randrange(len(data))])


def _whole(rng: random.Random) -> Wild:
    return _wild(rng, "whole, then left", _good(rng))


def _lying(rng: random.Random) -> Wild:
    body = json.dumps(_BODY).encode()
    sizes = (
        "0",
        "1",
        "-1",
        "+5",
        "5, 6",
        "0x10",
        "9" * 30,
        "1e3",
        " ",
        str(len(body) + 9),
        "16384",
    )
    headers = rng.choice(
        (
            (),
            (b"content-length: 3",),
            (b"transfer-encoding: chunked",),
            (b"transfer-encoding: gzip, chunked",),
            (b"content-encoding: gzip",),
            (b"inference-header-content-length: 99999",),
            (b"expect: 100-continue",),
        )
    )
    data = request(rng.choice(_PATHS), body, headers, rng.choice(sizes))
    return _wild(rng, "a lie in content-length", data)


def _chunked(rng: random.Random) -> Wild:
    chunks = [
        rng.choice(
            (
                b'5\r\n{"n":\r\n',
                b"0\r\n\r\n",
                b"-1\r\n\r\n",
                b"ffffffffffffffffffff\r\n",
                b"5\r\nab",
                b"zz\r\n",
                b"3;a=" + b"b" * 99 + b"\r\nabc\r\n",
                b"1\r\n \r\n" * 50,
                b"0\r\n" + EVIL + b": 1\r\n\r\n",
                rng.randbytes(20),
            )
        )
        for _ in range(rng.randrange(1, 6))
    ]
    head = b"POST /v1/samples HTTP/1.1\r\nhost: small\r\ncontent-type: application/json\r\n"
    data = head + CLOSE + b"transfer-encoding: chunked\r\n\r\n" + b"".join(chunks)
    return _wild(rng, "chunks", data)


def _large(rng: random.Random) -> Wild:
    size = rng.choice((10_000, 70_000, 300_000))
    header = rng.choice(
        (
            b"x: " + b"y" * size,
            b"y" * size + b": x",
            b"\r\n".join(b"x%d: y" % number for number in range(size // 8)),
            b"cookie: " + b"a=b;" * (size // 4),
        )
    )
    data = request(body=b"{}", headers=(header,))
    if rng.random() < 0.2:
        data = b"GET /" + b"a" * size + b" HTTP/1.1\r\nhost: small\r\n" + CLOSE + b"\r\n"
    return _wild(rng, "large", data)


def _injected(rng: random.Random) -> Wild:
    evil = rng.choice(
        (
            b"x-request-id: a\r\n " + EVIL + b": 1",
            b"x-request-id: a%0d%0a" + EVIL + b":1",
            b"x-request-id: a\r" + EVIL + b": 1",
            b"x-request-id: a\n" + EVIL + b": 1",
            b"x-request-id: a\0" + EVIL,
            b"x-request-id: \xc4\x8d\xc4\x8a" + EVIL + b": 1",
            b"x-request-id : " + EVIL,
            b"accept: application/octet-stream\r\nx-request-id: " + EVIL + b"\x0b1",
        )
    )
    data = request(rng.choice(_PATHS), json.dumps(_BODY).encode(), (evil,))
    if rng.random() < 0.3:
        path = rng.choice((b"/v1/models/a%0d%0a" + EVIL + b":1", b"/health\r" + EVIL, b"//\\..%2f"))
        data = b"GET " + path + b" HTTP/1.1\r\nhost: small\r\n" + CLOSE + b"\r\n"
    return _wild(rng, "injected", data)


def _pipelined(rng: random.Random) -> Wild:
    health = b"GET /health HTTP/1.1\r\nhost: small\r\n\r\n"
    some = b"".join(rng.choice((health, _good(rng))) for _ in range(rng.randrange(1, 8)))
    data = some.replace(CLOSE, b"") + _good(rng)
    return _wild(rng, "pipelined", data)


def _damaged(rng: random.Random) -> Wild:
    data = bytearray(_good(rng))
    for _ in range(rng.randrange(1, 9)):
        place = rng.randrange(len(data))
        if rng.random() < 0.5:
            data[place] = rng.randrange(256)
        else:
            data[place:place] = rng.randbytes(rng.randrange(4))
    return _wild(rng, "damaged", bytes(data))


def _noise(rng: random.Random) -> Wild:
    begin = rng.choice((b"", b"GET ", b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
    return _wild(rng, "noise", begin + rng.randbytes(rng.randrange(400)))


def _slow(rng: random.Random) -> Wild:
    """Stop, and wait until the server has had enough."""
    data = _good(rng)
    return _wild(rng, "slow", data[: rng.randrange(1, len(data))], "wait")


_KINDS: Final[tuple[Callable[[random.Random], Wild], ...]] = (
    *(_truncated, _whole, _lying, _chunked, _large, _injected, _pipelined, _damaged, _noise, _slow),
)
