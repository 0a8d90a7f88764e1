"""Write every page that shows figures from the committed results; nothing is measured.

These are the pages in benchmarks/results, docs/benchmarks.md, docs/quality.md with its plot, and
the table in README.md.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from common import peers_page, samplers_page
from common.machine import ROOT
from common.markdown import figures_page, with_block
from common.report import RESULTS, parser
from common.sampler_cells import KEPT, SEED, Found, N, Setup, collect, read_records
from gpu.page import page as gpu_page

from difftool.evaluate import open_extractor
from difftool.files import read_json, write_atomic

QUALITY = ROOT / "docs/quality.md"


def main() -> int:
    parser(__doc__).parse_args()
    for path in write_pages():
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


def write_pages() -> list[Path]:
    """Write the pages whose text changes, and list them.

    The plot is drawn with its page alone: its bytes depend on matplotlib's version.
    """
    changed = []
    for path, text in pages():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_atomic(path, text.encode())
            changed.append(path)
    if QUALITY in changed:
        samplers_page.plot(_samplers(), QUALITY.parent / samplers_page.IMAGE)
    return changed


def pages() -> Iterator[tuple[Path, str]]:
    """Give every page and what it should say."""
    records = {path.stem: read_json(path) for path in sorted(RESULTS.glob("*.json"))}
    records.pop(KEPT.stem, None)
    for name, record in records.items():
        write = gpu_page if name == "gpu" else figures_page
        yield RESULTS / f"{name}.md", write(record)
    compared = {name: records[name] for name in peers_page.READS if name in records}
    yield ROOT / "docs/benchmarks.md", peers_page.page(compared)
    yield QUALITY, samplers_page.page(_samplers())
    readme = ROOT / "README.md"
    block = peers_page.readme_block(compared)
    yield readme, with_block(readme.read_text(encoding="utf-8"), "ratios", block)


def _samplers() -> Found:
    setup = Setup(N, SEED, open_extractor("mnist", threads=1).sha256)
    return collect(read_records(KEPT), setup)


if __name__ == "__main__":
    sys.exit(main())
