"""Data sets that went wrong: images that are none, tables that lack what is asked for."""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

OPTIONS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"mode": "L"},
    {"mode": "RGB", "size": 4},
    {"column": "label"},
    {"column": "no such"},
    {"labels": "label"},
    {"labels": "image"},
    {"split": "no such"},
)
# What no option makes an 8-bit image, or one that may be decoded.
NEVER: Final = ("16bit", "16bit-bytes", "float", "bomb", "nearly-bomb", "huge", "text", "truncated")


@dataclass(frozen=True)
class Source:
    """A data set to load, and the options to load it with."""

    name: str
    path: str
    options: tuple[tuple[str, Any], ...]

    def __repr__(self) -> str:
        return f"{self.name} {dict(self.options)}"


def sources(folder: Path, seeds: int) -> Iterator[Source]:
    """Yield every one with every option; so many images with damaged bytes are among them."""
    made = {name: _folder(folder / name, files) for name, files in _images().items()}
    made |= {name: _folder(folder / name, [data]) for name, data in _damaged(seeds)}
    made |= _tables(folder)
    made["saved"] = str(folder / "saved")
    datasets.Dataset.from_dict({"image": [1]}).save_to_disk(made["saved"])
    made |= {"long": "a" * 5000, "zero": "\0", "newline": "\n", "device": "/dev/null"}
    made |= {"script": str(folder / "x.py"), "pattern": str(folder / "no*.parquet")}
    made["folder.parquet"] = str(folder / "folder.parquet")
    (folder / "folder.parquet").mkdir()
    for name, path in made.items():
        for options in OPTIONS:
            yield Source(name, path, tuple(options.items()))


def _images() -> dict[str, list[bytes]]:
    """Return files by the name of their folder."""
    good = _encoded(Image.new("L", (6, 4)))
    wide = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2000
    palette = Image.new("P", (6, 4))
    palette.putpalette([*range(256)] * 3)
    return {
        "empty": [],
        "nothing": [b""],
        "text": [b"hello"],
        "pixel": [_encoded(Image.new("L", (1, 1)))],
        "truncated": [_encoded(Image.new("L", (60, 40)))[:60]],
        "mixed": [good, _encoded(Image.new("RGB", (5, 5)))],
        "16bit": [_encoded(Image.fromarray(wide))],
        "16bit-bytes": [_encoded(Image.fromarray(wide), "TIFF")],
        "float": [_encoded(Image.new("F", (4, 4)), "TIFF")],
        "palette": [_encoded(palette, transparency=bytes(10))],
        "bits": [_encoded(Image.new("1", (4, 4)))],
        "cmyk": [_encoded(Image.new("CMYK", (4, 4)), "JPEG")],
        "alpha": [_encoded(Image.new("RGBA", (4, 4))), _encoded(Image.new("LA", (4, 4)))],
        "nearly-bomb": [_header(10_000, 10_000)],
        "bomb": [_header(20_000, 20_000)],
        "huge": [_header(2**31 - 1, 2**31 - 1)],
        "array": [_array(np.zeros((4, 4)))],
        "pickled": [_array(np.array([{}], object))],
        **{kind.lower(): [_encoded(Image.new("RGB", (5, 3)), kind)] for kind in ("GIF", "WEBP")},
    }


def _damaged(count: int) -> Iterator[tuple[str, bytes]]:
    """Yield images of several formats with some bytes changed."""
    rng = random.Random(0)
    picture = Image.effect_noise((16, 12), 50)
    for index in range(count):
        kind = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA")[index % 8]
        data = bytearray(_encoded(picture.convert("RGB"), kind))
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(min(len(data), 200))] = rng.randrange(256)
        yield f"damaged-{kind}-{index}", bytes(data)


def _tables(folder: Path) -> dict[str, str]:
    """Write Parquet files; return their paths by name."""
    image = {"bytes": _encoded(Image.new("L", (6, 4))), "path": None}
    nothing = {"bytes": None, "path": None}
    absent = {"bytes": None, "path": "/nowhere/a.png"}
    columns: dict[str, dict[str, Any]] = {
        "beyond-classes": {"image": [image, image], "label": [0, 7]},
        "negative": {"image": [image, image], "label": [0, -1]},
        "unlabelled": {"image": [image, image], "label": [0, None]},
        "null-image": {"image": [image, None], "label": [0, 1]},
        "null-parts": {"image": [nothing], "label": [0]},
        "absent-path": {"image": [absent], "label": [0]},
        "no-rows": {"image": pa.array([], pa.struct({"bytes": pa.binary(), "path": pa.string()}))},
        "words": {"image": ["a", "b"], "label": [1.5, 2.5]},
        "numbers": {"image": [1, 2], "label": ["a", "b"]},
        "large": {"image": [image], "label": pa.array([2**64 - 1], pa.uint64())},
    }
    kinds = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    )
    found = {"junk": folder / "junk.parquet", "archive": folder / "archive.npz"}
    found["junk"].write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    np.savez(found["archive"], images=np.zeros((2, 4, 4, 1), np.uint8))
    for name, values in columns.items():
        table = pa.table(values)
        if name == "beyond-classes":
            table = table.cast(kinds.arrow_schema)
        found[name] = folder / f"{name}.parquet"
        pq.write_table(table, found[name])
    return {name: str(path) for name, path in found.items()}


def _folder(path: Path, files: list[bytes]) -> str:
    path.mkdir()
    for index, data in enumerate(files):
        (path / f"{index}.png").write_bytes(data)
    return str(path)


def _encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _array(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def _header(width: int, height: int) -> bytes:
    """Return a PNG that says it is of a size, and holds a single byte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rest = chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + start + rest
