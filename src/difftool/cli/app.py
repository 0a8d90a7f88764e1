"""The commands and their names. Heavy imports wait until a command runs."""

from typing import Annotated

from typer import Exit, Option, Typer

from difftool import __version__
from difftool.cli import (
    bench,
    cache,
    compile,
    distill,
    doctor,
    eval,
    export,
    import_,
    inspect,
    likelihood,
    models,
    plot,
    program,
    quantize,
    sample,
    samplers,
    serve,
    train,
    verify,
    web,
)
from difftool.cli.console import report

app = Typer(
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Exit codes: 0 ok, 1 a check failed, 2 usage, 3 a bad file, 4 something is not installed,
5 out of memory or disk, 101 a bug, 130 interrupted.
""",
)


@app.callback(invoke_without_command=True)
def difftool(
    version: Annotated[
        bool,
        Option("--version", help="Print the version; with --verbose, also those of libraries."),
    ] = False,
    debug: Annotated[  # only for the help: `command` has already removed it from the line
        bool, Option("--debug", help="Print a traceback with every error.")
    ] = False,
    verbose: Annotated[  # `command` leaves it on the line only together with --version
        bool, Option("--verbose", help="Print on stderr what is done on the way.")
    ] = False,
) -> None:
    """Train, export, verify and sample diffusion and score models; sampling needs no PyTorch."""
    if not version:
        return
    print(f"difftool {__version__}")
    if verbose:
        from difftool.cli.versions import RUNTIME, needed_by, versions
        from difftool.runtime import BACKENDS

        found = versions([*RUNTIME, *needed_by(BACKENDS)])
        del found["difftool"]
        report({name: each or "not installed" for name, each in found.items()}, as_json=False)
    raise Exit


app.command(epilog=train.EXAMPLES)(train.train)
app.command(epilog=distill.EXAMPLES)(distill.distill)
app.command("import", epilog=import_.EXAMPLES)(import_.import_)
app.command(epilog=export.EXAMPLES)(export.export)
app.command("compile", epilog=compile.EXAMPLES)(compile.compile_)
app.command(epilog=sample.EXAMPLES)(sample.sample)
app.command(epilog=inspect.EXAMPLES)(inspect.inspect)
app.command(epilog=quantize.EXAMPLES)(quantize.quantize)
app.command(epilog=verify.EXAMPLES)(verify.verify)
app.command(epilog=bench.EXAMPLES)(bench.bench)
app.command("eval", epilog=eval.EXAMPLES)(eval.evaluate)
app.command(epilog=likelihood.EXAMPLES)(likelihood.likelihood)
app.command(epilog=samplers.EXAMPLES)(samplers.samplers)
app.command(epilog=program.EXAMPLES)(program.program)
app.command(epilog=web.EXAMPLES)(web.web)
app.command(epilog=serve.EXAMPLES)(serve.serve)
app.command(epilog=models.EXAMPLES)(models.models)
app.add_typer(plot.plot, name="plot", epilog=plot.EXAMPLES)
app.add_typer(cache.cache, name="cache", epilog=cache.EXAMPLES)
app.command(epilog=doctor.EXAMPLES)(doctor.doctor)
