"""difftool web: a page that samples a bundle in the browser."""

from pathlib import Path
from typing import Annotated

from typer import Option

from difftool.cli import options
from difftool.cli.console import report

EXAMPLES = """\b
Examples:
  difftool web ddpm-mnist --out site
  difftool web digits.bundle --runtime node_modules/onnxruntime-web --sampler ddim --steps 50
  python -m http.server --directory site
"""


def web(
    model: options.Model = options.DEFAULT_MODEL,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    eta: options.Eta = None,
    assignments: options.Assignments = None,
    precision: options.Precision = "fp32",
    runtime: Annotated[
        Path,
        Option(
            metavar="FOLDER",
            help="Where npm install onnxruntime-web put it; the page takes its files along.",
        ),
    ] = Path("node_modules"),
    out: Annotated[
        Path, Option("--out", "-o", metavar="FOLDER", help="Folder to make; it appears whole.")
    ] = Path("site"),
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Write a static page that samples in the browser.

    Any server of static files will do. --sampler, --steps, --eta and --arg choose the program that
    the page offers first.
    """
    from difftool.bundle import read_bundle
    from difftool.compile.sampler_onnx.site import write_site
    from difftool.runtime.model import find_bundle

    options.require_place(out)
    bundle = read_bundle(find_bundle(model))
    asked = options.sampler_call(sampler, steps, eta, assignments)
    program = options.choose_program(bundle, asked)
    title = Path(model).name
    folder = write_site(
        bundle, out, runtime, program, title=title, precision=precision, force=force
    )
    files = [file for file in folder.rglob("*") if file.is_file()]
    report(
        {
            "site": str(out),
            "files": len(files),
            "bytes": sum(file.stat().st_size for file in files),
            "program": program.name,
            "precision": precision,
        },
        as_json=json,
    )
