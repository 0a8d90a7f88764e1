"""The pictures, tables and figures of docs/ddpm.md, in about five minutes on one core.

python examples/ddpm.py [--data FOLDER] [--quick]

The first half is on the line, where every distribution of the chain has a formula. The second is
measured on the shipped model, on MNIST's test images, and on a small VAE that is trained here.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ddpm_story.measured import FULL, QUICK, measure, read_images
from ddpm_story.page import renewed
from ddpm_story.pictures import all_pictures
from score_matching import save

from difftool.errors import DifftoolError
from difftool.files import write_atomic, write_json

ROOT = Path(__file__).resolve().parents[1]


def main(words: Sequence[str] | None = None) -> int:
    """Measure, draw and write; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--data",
        default=str(ROOT.parent / "shared/data/mnist"),
        help="MNIST: a folder of its parquet files, one of them, or hf:ylecun/mnist for a download",
    )
    parser.add_argument("--quick", action="store_true", help="measure next to nothing, on digits")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="write here; see --quick")
    options = parser.parse_args(words)
    if options.quick and options.docs == ROOT / "docs":
        parser.error("--quick measures too little for the page: give another folder as --docs")
    size = QUICK if options.quick else FULL
    try:
        found = measure(read_images("digits" if options.quick else options.data), size)
    except DifftoolError as error:
        print(error, file=sys.stderr)
        return 1
    write_json(options.docs / "data" / "ddpm.json", found.figures)
    for name, figure in all_pictures(found, size).items():
        save(figure, options.docs / "images" / "ddpm" / f"{name}.png")
    page = ROOT / "docs" / "ddpm.md"
    text = renewed(page.read_text(encoding="utf-8"), found.figures)
    write_atomic(options.docs / "ddpm.md", text.encode())
    print(f"{options.docs / 'ddpm.md'}: {found.figures['minutes']:.1f} minutes of processor time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
