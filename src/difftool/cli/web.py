"""difftool web: write a page that samples a bundle in the browser."""

from pathlib import Path
from typing import Annotated

from typer import Option

from difftool.cli import options
from difftool.cli.console import report
from difftool.outputs import require_place

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
            help="Folder that holds onnxruntime-web, as npm installs it; its files are copied.",
        ),
    ] = Path("node_modules"),
    out: Annotated[Path, options.out("FOLDER", options.NEW_FOLDER)] = Path("site"),
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Write a static page that samples in the browser.

    Any server of static files can serve it. --sampler, --steps, --eta and --arg choose the program
    that the page offers first.
    """
    from difftool.compile import web as make

    require_place(out)
    bundle, program = options.open_program(model, sampler, steps, eta, assignments)
    page = make(
        bundle,
        out,
        runtime=runtime,
        program=program,
        precision=precision,
        title=Path(model).name,
        force=force,
    )
    report(
        {
            "site": str(page.path),
            "files": page.files,
            "bytes": page.size,
            "program": page.program.name,
            "precision": page.precision,
        },
        as_json=json,
    )
