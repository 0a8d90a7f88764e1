"""An ONNX file as the fields of its messages, and ways to write them that are not the usual one.

`mutated` makes one file of another. It keeps the lengths of the messages around a change right, so
that what is tried is met by a parser, and not the end of the file.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from difftool.preflight.schema import MESSAGES, Field
from difftool.preflight.wire import BYTES, VARINT, fields

_GROUP, _GROUP_END = 3, 4
WIDE: Final = (1 << 29, 1 << 32, 1 << 35)  # bits that a reader of 32 bits, or of five bytes, drops


@dataclass
class Part:
    """A field. `inner` are its fields if it is a message; `tag` and `size` write the number and
    the length, in more bytes than they take or with other bits, if they are not the usual ones."""

    number: int
    wire: int
    value: int | bytes = b""
    inner: "list[Part] | None" = None
    kind: str = ""
    tag: Callable[[int], bytes] | None = None
    size: Callable[[int], bytes] | None = None
    before: bytes = b""
    after: bytes = b""

    def written(self) -> bytes:
        """Return the field's bytes."""
        key = (self.tag or varint)(self.number << 3 | self.wire)
        if isinstance(self.value, int):
            return self.before + key + (self.size or varint)(self.value) + self.after
        content = self.value if self.inner is None else b"".join(p.written() for p in self.inner)
        length = (self.size or varint)(len(content)) if self.wire == BYTES else b""
        return self.before + key + length + content + self.after


@dataclass
class File:
    """A whole file, taken apart."""

    parts: list[Part] = field(default_factory=list)

    def written(self) -> bytes:
        return b"".join(part.written() for part in self.parts)

    def all(self) -> Iterator[tuple[list[Part], int, str]]:
        """Yield the list that each field is in, its place there, and the message's kind."""

        def walk(parts: list[Part], kind: str) -> Iterator[tuple[list[Part], int, str]]:
            for index, part in enumerate(parts):
                yield parts, index, kind
                if part.inner is not None:
                    yield from walk(part.inner, part.kind)

        yield from walk(self.parts, "ModelProto")


def taken_apart(data: bytes) -> File:
    """Return the fields of a file that is as it should be."""

    def parts(view: memoryview, kind: str) -> list[Part]:
        found = []
        for number, wire, value in fields(view):
            known = MESSAGES[kind][number]
            assert isinstance(known, Field)
            if isinstance(value, int):
                found.append(Part(number, wire, value))
            elif known.message:
                found.append(Part(number, wire, b"", parts(value, known.kind), known.kind))
            else:
                found.append(Part(number, wire, bytes(value)))
        return found

    return File(parts(memoryview(data), "ModelProto"))


def varint(value: int, longer: int = 0) -> bytes:
    """Return a number of the wire, in so many bytes more than it takes."""
    out = []
    value &= (1 << 70) - 1
    while True:
        out.append(value & 0x7F)
        value >>= 7
        if not value:
            break
    out += [0] * longer
    return bytes(byte | 0x80 for byte in out[:-1]) + bytes(out[-1:])


def mutated(data: bytes, seed: int) -> bytes:
    """Return the file with one to three changes, as the seed says."""
    rng = random.Random(seed)
    file = taken_apart(data)
    places = list(file.all())
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        parts, index, kind = rng.choice(places)
        if index < len(parts):
            rng.choice(WAYS)(rng, parts, index, kind)
    written = file.written()
    if rng.random() < 0.05:
        spoiled = bytearray(written)
        spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
        written = bytes(spoiled)
    return written


def _wide_tag(rng: random.Random, parts: list[Part], index: int, kind: str) -> None:
    """Give a known field a number that has the same low bits; next to it, or in its place."""
    wide = rng.choice(WIDE)
    twin = _copy(parts[index])
    twin.tag = lambda key: varint(key | wide << rng.choice((0, 3)))
    if rng.random() < 0.5:
        parts[index] = twin
    else:
        parts.insert(rng.randrange(len(parts) + 1), twin)


def _long_number(rng: random.Random, parts: list[Part], index: int, kind: str) -> None:
    """Write a tag or a length in more bytes than it takes, up to more than there may be."""
    longer = rng.choice((1, 1, 2, 4, 8, 9, 12))
    if rng.random() < 0.5:
        parts[index].tag = lambda key: varint(key, longer)
    else:
        parts[index].size = lambda size: varint(size, longer)


def _wild_number(rng: random.Random, parts: list[Part], index: int, kind: str) -> None:
    """Give a value, a length or a packed list numbers of 32, 64 or more bits."""
    wild = rng.choice(
        (0, 1, 127, 128, 1 << 31, 1 << 32, (1 << 32) + 1, 1 << 63, (1 << 64) - 1, 1 << 64)
    )
    part = parts[index]
    if isinstance(part.value, int):
        part.value = rng.choice((wild, part.value | 1 << 32, part.value + (1 << 64)))
    elif rng.random() < 0.5:
        part.size = lambda size: varint(
            rng.choice((wild, size + 1, max(0, size - 1), size | 1 << 32))
        )
    elif part.inner is None:
        part.value = bytes(part.value) + varint(wild)


def _unknown(rng: random.Random, parts: list[Part], index: int, kind: str) -> None:
    """Add a field that ONNX has not, or not here, of any type."""
    number = rng.choice((rng.randrange(1, 40), rng.randrange(40, 20_000), (1 << 29) - 1, 1 << 29))
    wire = rng.choice((VARINT, BYTES, BYTES, 1, 5))
    value: int | bytes = rng.randbytes({1: 8, 5: 4}.get(wire, rng.randrange(6)))
    parts.insert(index, Part(number, wire, rng.randrange(1 << 40) if wire == VARINT else value))


def _group(rng: random.Random, parts: list[Part], index: int, kind: str) -> None:
    """Put a group around a field, or an end of one that has no begin."""
    number = rng.choice((rng.randrange(1, 30), parts[index].number))
    if rng.random() < 0.8:
        parts[index].before = varint(number << 3 | _GROUP)
    if rng.random() < 0.8:
        parts[index].after = varint(number << 3 | _GROUP_END)


def _twice(rng: random.Random, parts: list[Part], index: int, kind: str) -> None:
    """Repeat a field, whole or in part: one reader takes the last, one merges them."""
    twin = _copy(parts[index])
    if twin.inner:
        twin.inner.pop(rng.randrange(len(twin.inner)))
    elif isinstance(twin.value, int):
        twin.value += rng.choice((0, 1))
    parts.insert(rng.randrange(len(parts) + 1), twin)


def _moved(rng: random.Random, parts: list[Part], index: int, kind: str) -> None:
    """Move a field to another place of its message, which means the same."""
    parts.insert(rng.randrange(len(parts)), parts.pop(index))


def _repacked(rng: random.Random, parts: list[Part], index: int, kind: str) -> None:
    """Write a list of numbers one by one, in two lists or empty, or one number as a list."""
    part = parts[index]
    known = MESSAGES[kind].get(part.number)
    if not isinstance(known, Field) or not known.numbers:
        return
    if isinstance(part.value, int):
        parts[index] = Part(part.number, BYTES, varint(part.value))
    elif part.wire == BYTES and rng.random() < 0.3:
        parts.insert(index, Part(part.number, BYTES, b""))
    elif part.wire == BYTES and known.wire == VARINT:
        view = memoryview(b"".join(b"\x08" + varint(byte) for byte in part.value if byte < 0x80))
        parts[index : index + 1] = [Part(part.number, VARINT, int(v)) for _, _, v in fields(view)]  # type: ignore[arg-type]
    elif part.wire == BYTES and len(part.value) >= 4:
        parts[index : index + 1] = [
            Part(part.number, BYTES, part.value[:4]),
            Part(part.number, BYTES, part.value[4:]),
        ]


def _retyped(rng: random.Random, parts: list[Part], index: int, kind: str) -> None:
    """Give a field another wire type, or another field's number."""
    part = parts[index]
    if rng.random() < 0.5:
        part.number = rng.choice(list(MESSAGES[kind]))
    else:
        part.wire = rng.choice((0, 1, 2, 3, 4, 5, 6, 7))


def _text(rng: random.Random, parts: list[Part], index: int, kind: str) -> None:
    """Add bytes that are no text, that end a text for some, or that make it longer."""
    part = parts[index]
    if isinstance(part.value, bytes) and part.inner is None:
        part.value += rng.choice((b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"x", b"\0x"))


def _dropped(rng: random.Random, parts: list[Part], index: int, kind: str) -> None:
    """Leave a field out."""
    parts.pop(index)


def _copy(part: Part) -> Part:
    inner = None if part.inner is None else [_copy(item) for item in part.inner]
    return Part(part.number, part.wire, part.value, inner, part.kind)


WAYS: Final = (
    _wide_tag, _long_number, _wild_number, _unknown, _group, _twice, _moved, _repacked, _retyped,
    _text, _dropped,
)  # fmt: skip
