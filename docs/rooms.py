"""Draw docs/images/rooms.svg: the rooms of difftool, floor by floor, and who imports whom.

python docs/rooms.py

Floors are those of import-linter in pyproject.toml; arrows and libraries are what the files import.
"""

import ast
import sys
import textwrap
import tomllib
from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape

import grimp

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "rooms.svg"
PACKAGE = "difftool"

WIDTH, MARGIN, GAP = 960, 16, 14  # pixels
LINE, LETTERS = 15, 6.3  # height of a line, width of a letter of small text
BETWEEN = 34  # two floors
Box = tuple[float, float, float, float]  # left, top, width, height
# A room that needs PyTorch, another library, or none but numpy.
COLOURS = {"torch": "#fdf0e3", "other": "#e4f3e8", "numpy": "#e3edfb"}


def floors() -> list[list[str]]:
    """Return the rooms from the top floor down, as the layers of import-linter name them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = (
        contract["layers"]
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    rooms = [[room.strip() for room in layer.split("|")] for layer in layers]
    return [[room for room in floor if not room.startswith("__")] for floor in rooms][1:]


def imports(rooms: list[str]) -> dict[str, set[str]]:
    """Return for each room the rooms that it imports, inside of functions too."""
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=True, cache_dir=None)
    found: dict[str, set[str]] = {room: set() for room in rooms}
    for module in graph.modules:
        if (room := _room(module)) in found:
            found[room] |= {
                _room(below) for below in graph.find_modules_directly_imported_by(module)
            }
    return {room: (below & found.keys()) - {room} for room, below in found.items()}


def libraries(room: str) -> tuple[set[str], set[str]]:
    """Return the libraries that a room is never imported without, and those it takes on demand."""
    needed: set[str] = set()
    every: set[str] = set()
    for file in _files(room):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        needed |= _libraries(tree.body)
        every |= _libraries(ast.walk(tree))
    return needed, every - needed


def direct(inner: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return the arrows: an import is left out if a longer way leads there, too."""
    reached: dict[str, set[str]] = {}

    def reach(room: str) -> set[str]:
        if room not in reached:
            reached[room] = inner[room].union(*(reach(below) for below in inner[room]))
        return reached[room]

    return [
        (room, below)
        for room in inner
        for below in sorted(inner[room])
        if not any(below in reach(between) for between in inner[room] - {below})
    ]


def purpose(room: str) -> str:
    """Return the first sentence of a room's docstring."""
    text = ast.get_docstring(ast.parse(_files(room)[0].read_text(encoding="utf-8"))) or ""
    sentence = text.partition("\n\n")[0].replace("\n", " ")
    return min((sentence.partition(mark)[0] for mark in (";", ". ")), key=len).rstrip(".")


def draw() -> str:
    """Return the picture, as SVG."""
    rows = floors()
    inner = imports([room for floor in rows for room in floor])
    boxes: dict[str, Box] = {}
    body: list[str] = []
    top = float(MARGIN)
    for floor in rows:
        width = (WIDTH - 2 * MARGIN - GAP * (len(floor) - 1)) / max(len(floor), 2)
        left = (WIDTH - width * len(floor) - GAP * (len(floor) - 1)) / 2
        texts = {room: _words(room, width) for room in floor}
        height = LINE * (1.6 + max(map(len, texts.values())))
        for room, lines in texts.items():
            boxes[room] = left, top, width, height
            body += _box(room, lines, boxes[room])
            left += width + GAP
        top += height + BETWEEN
    arrows = [_arrow(boxes[room], boxes[below]) for room, below in direct(inner)]
    height = top - BETWEEN + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}"'
            ' font-family="system-ui, sans-serif" font-size="14">',
            "  <title>The rooms of difftool, and who imports whom</title>",
            '  <defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
            ' markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#8c959f"/></marker>',
            "  </defs>",
            f'  <rect width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>',
            *(f"  {line}" for line in (*arrows, *body)),
            "</svg>\n",
        ]
    )


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _files(room: str) -> list[Path]:
    """Return a room's files; the first is the one that says what the room is for."""
    folder = ROOT / "src" / PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def _libraries(nodes: Iterable[ast.AST]) -> set[str]:
    """Return what import statements among nodes name, without Python's own library and ours."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names - {PACKAGE, "", "__future__"} - sys.stdlib_module_names


def _words(room: str, width: float) -> list[str]:
    letters = int((width - 16) / LETTERS)
    needed, demanded = libraries(room)
    needs = f"needs {', '.join(sorted(needed))}" if needed else "needs no library"
    if demanded:
        needs += f"; on demand {', '.join(sorted(demanded))}"
    return [*textwrap.wrap(purpose(room), letters), *textwrap.wrap(needs, letters)]


def _box(room: str, lines: list[str], at: Box) -> list[str]:
    left, top, width, height = at
    others = libraries(room)[0] - {"numpy"}
    colour = COLOURS["torch" if "torch" in others else "other" if others else "numpy"]
    middle = left + width / 2
    small = [
        f'<text x="{middle:.0f}" y="{top + LINE * (index + 2.2):.0f}" font-size="12"'
        f' text-anchor="middle" fill="#1f2328">{escape(line)}</text>'
        for index, line in enumerate(lines)
    ]
    return [
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{height:.0f}" rx="8"'
        f' fill="{colour}" stroke="#1f2328"/>',
        f'<text x="{middle:.0f}" y="{top + LINE * 1.2:.0f}" font-weight="600"'
        f' text-anchor="middle" fill="#1f2328">{room}</text>',
        *small,
    ]


def _arrow(above: Box, below: Box) -> str:
    x0, y0 = above[0] + above[2] / 2, above[1] + above[3]
    x1, y1 = below[0] + below[2] / 2, below[1]
    bend = max(BETWEEN, (y1 - y0) / 2)
    return (
        f'<path d="M{x0:.0f} {y0:.0f}C{x0:.0f} {y0 + bend:.0f} {x1:.0f} {y1 - bend:.0f}'
        f' {x1:.0f} {y1:.0f}" fill="none" stroke="#8c959f" stroke-width="1.4"'
        ' marker-end="url(#tip)"/>'
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
