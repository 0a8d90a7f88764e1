"""Draw the pictures of docs/scale.md: who does what, and how far bulk sampling scales.

python docs/scale.py

The curve is that of benchmarks/results/scale.json, which benchmarks/scale.py measures.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
RECORD = ROOT / "benchmarks" / "results" / "scale.json"

WIDTH, LINE = 960, 17  # pixels
INK, GREY = "#1f2328", "#8c959f"
OURS, THEIRS, FILES = "#e3edfb", "#fdf0e3", "#e4f3e8"
LINES = {"50,000": "#0969da", "a million": "#bc4c00"}
Point = tuple[float, float]
HOURS = re.compile(r"(.+), (\d+) workers: hours")


def box(left: float, top: float, width: float, height: float, colour: str, *text: str) -> str:
    """Return a box; its first line of text is bold."""
    middle, first = left + width / 2, top + height / 2 - LINE * (len(text) - 1) / 2 + 5
    lines = [
        f'<text x="{middle:.0f}" y="{first + LINE * index:.0f}" text-anchor="middle"'
        f' fill="{INK}"{" font-weight=" + chr(34) + "600" + chr(34) if not index else ""}'
        f' font-size="{12 if index else 14}">{escape(line)}</text>'
        for index, line in enumerate(text)
    ]
    frame = (
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{height:.0f}" rx="8"'
        f' fill="{colour}" stroke="{INK}"/>'
    )
    return "\n".join([frame, *lines])


def note(x: float, y: float, text: str, anchor: str = "middle", colour: str = INK) -> str:
    """Return small text at a point."""
    place = f'x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="12" fill="{colour}">{escape(text)}</text>'


def arrow(start: Point, end: Point, both: bool = False) -> str:
    """Return a straight arrow, or one with two tips."""
    (x0, y0), (x1, y1) = start, end
    tips = ' marker-end="url(#tip)"' + (' marker-start="url(#tip)"' if both else "")
    return (
        f'<path d="M{x0:.0f} {y0:.0f}L{x1:.0f} {y1:.0f}" fill="none" stroke="{GREY}"'
        f' stroke-width="1.4"{tips}/>'
    )


def picture(title: str, height: int, body: Iterable[str]) -> str:
    """Return a picture, as SVG."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
            ' font-family="system-ui, sans-serif">',
            f"<title>{title}</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
            ' markerHeight="7" orient="auto-start-reverse">'
            f'<path d="M0 0 8 4 0 8z" fill="{GREY}"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            *body,
            "</svg>\n",
        ]
    )


def bulk() -> Iterator[str]:
    """Draw `difftool sample --ray`."""
    yield box(20, 80, 220, 90, OURS, "difftool sample --ray", "ranges of indices", "one manifest")
    yield box(640, 85, 300, 80, FILES, "samples/", "manifest.json", "data/train-00000-of-00049 ...")
    for index in range(3):
        top = 15 + 80 * index
        first = 1024 * index
        yield box(340, top, 200, 60, THEIRS, f"task {index}", f"samples {first} to {first + 1023}")
        yield arrow((240, 125), (338, top + 30))
        yield arrow((540, top + 30), (638, 125))
    yield note(290, 40, "a range")
    yield note(590, 40, "a shard")
    yield note(440, 275, "Ray gives a task to a core or a GPU, and again if its worker dies")


def serve() -> Iterator[str]:
    """Draw the server on Ray Serve."""
    yield box(20, 95, 130, 60, "#ffffff", "clients", "HTTP, events")
    yield box(240, 95, 170, 60, THEIRS, "Ray's proxy", "one on each machine")
    yield box(240, 215, 170, 60, THEIRS, "Ray's controller", "health, number")
    yield arrow((150, 125), (238, 125), both=True)
    for index in range(3):
        top = 15 + 90 * index
        yield box(520, top, 170, 70, OURS, f"replica {index}", "the whole HTTP API")
        yield box(780, top, 160, 70, OURS, "step scheduler", "queue, slots, batch")
        yield arrow((410, 125), (518, top + 35), both=True)
        yield arrow((690, top + 35), (778, top + 35), both=True)
    yield arrow((518, 250), (412, 250), both=True)
    yield note(464, 285, "wait, busy, health")
    yield note(735, 40, "submit")


def training() -> Iterator[str]:
    """Draw training in several processes."""
    yield box(20, 90, 200, 60, THEIRS, "torchrun, accelerate", "starts and counts them")
    for index in range(3):
        top, also = 15 + 80 * index, ", reports and saves" if not index else ""
        yield box(330, top, 300, 60, OURS, f"process {index}", f"its part of each batch{also}")
        yield arrow((220, 120), (328, top + 30))
        if index:
            yield arrow((560, top), (560, top - 20), both=True)
    yield note(575, 89, "gradients, summed (gloo, NCCL)", "start")
    yield box(740, 15, 200, 60, FILES, "runs/NAME", "checkpoints, metrics")
    yield arrow((630, 45), (738, 45))


def curves(record: dict[str, object]) -> Iterator[str]:
    """Draw hours by workers, as the simulation computed them, beside perfect scaling."""
    left, right, top, bottom = 90.0, 800.0, 30.0, 330.0
    times: dict[str, dict[int, float]] = {}
    for figure in record["figures"]:  # type: ignore[attr-defined]
        if found := HOURS.fullmatch(figure["name"]):
            times.setdefault(found[1], {})[int(found[2])] = figure["values"][0]
    every = [hours for line in times.values() for hours in line.values()]
    counts = sorted({count for line in times.values() for count in line})
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    low = min(low, math.floor(math.log10(min(line[1] / counts[-1] for line in times.values()))))

    def place(count: int, hours: float) -> Point:
        x = left + (right - left) * math.log(count / counts[0]) / math.log(counts[-1] / counts[0])
        return x, bottom - (bottom - top) * (math.log10(hours) - low) / (high - low)

    for power in range(low, high + 1):
        _, y = place(1, 10.0**power)
        yield f'<path d="M{left} {y:.0f}H{right}" stroke="#d8dee4"/>'
        yield note(left - 8, y + 4, f"{10.0**power:g} h", "end")
    for count in counts:
        yield note(place(count, 1.0)[0], bottom + 20, str(count))
    yield note((left + right) / 2, bottom + 42, "workers")
    for name, line in times.items():
        perfect = [place(count, line[counts[0]] / count) for count in counts]
        yield _path(perfect, f'stroke="{GREY}" stroke-dasharray="4 4"')
        yield _path([place(*each) for each in line.items()], f'stroke="{LINES[name]}"')
        for each in line.items():
            x, y = place(*each)
            yield f'<circle cx="{x:.0f}" cy="{y:.0f}" r="3.5" fill="{LINES[name]}"/>'
        x, y = place(counts[0], line[counts[0]])
        yield note(x + 12, y - 6, name, "start", LINES[name])
    yield note(right, bottom + 42, "dashed: perfect scaling", "end", GREY)


def _path(points: list[Point], style: str) -> str:
    way = "L".join(f"{x:.0f} {y:.0f}" for x, y in points)
    return f'<path d="M{way}" fill="none" stroke-width="1.8" {style}/>'


def pictures() -> dict[str, str]:
    """Return all pictures by the names of their files."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    return {
        "scale-bulk.svg": picture("Bulk sampling on Ray", 290, bulk()),
        "scale-serve.svg": picture("Replicas of the server on Ray Serve", 300, serve()),
        "scale-training.svg": picture("Training in several processes", 250, training()),
        "scale-workers.svg": picture("Hours by the number of workers", 390, curves(record)),
    }


if __name__ == "__main__":
    for name, text in pictures().items():
        (IMAGES / name).write_text(text, encoding="utf-8")
