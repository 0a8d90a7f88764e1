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
    extractor,
    import_,
    inspect,
    likelihood,
    measure,
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
from difftool.cli.console import is_verbose, report
from difftool.cli.grouped import Command, Group

app = Typer(
    cls=Group,
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
        Option(
            "--version", "-V", help="Print the version; with --verbose, also those of libraries."
        ),
    ] = False,
) -> None:
    """Train, export, verify and sample diffusion and score models; sampling needs no PyTorch."""
    if not version:
        return
    print(f"difftool {__version__}")
    if is_verbose():
        from difftool.cli.versions import RUNTIME, needed_by, versions
        from difftool.runtime import BACKENDS

        found = versions([*RUNTIME, *needed_by(BACKENDS)])
        del found["difftool"]
        report({name: each or "not installed" for name, each in found.items()}, as_json=False)
    raise Exit


app.command(cls=Command, epilog=train.EXAMPLES)(train.train)
app.command(cls=Command, epilog=distill.EXAMPLES)(distill.distill)
app.command("import", cls=Command, epilog=import_.EXAMPLES)(import_.import_)
app.command(cls=Command, epilog=export.EXAMPLES)(export.export)
app.command("compile", cls=Command, epilog=compile.EXAMPLES)(compile.compile_)
app.command(cls=Command, epilog=sample.EXAMPLES)(sample.sample)
app.command(cls=Command, epilog=inspect.EXAMPLES)(inspect.inspect)
app.command(cls=Command, epilog=quantize.EXAMPLES)(quantize.quantize)
app.command(cls=Command, epilog=verify.EXAMPLES)(verify.verify)
app.command(cls=Command, epilog=bench.EXAMPLES)(bench.bench)
app.command("eval", cls=Command, epilog=eval.EXAMPLES)(eval.evaluate)
app.command(cls=Command, epilog=measure.EXAMPLES)(measure.measure)
app.command(cls=Command, epilog=extractor.EXAMPLES)(extractor.extractor)
app.command(cls=Command, epilog=likelihood.EXAMPLES)(likelihood.likelihood)
app.command(cls=Command, epilog=samplers.EXAMPLES)(samplers.samplers)
app.command(cls=Command, epilog=program.EXAMPLES)(program.program)
app.command(cls=Command, epilog=web.EXAMPLES)(web.web)
app.command(cls=Command, epilog=serve.EXAMPLES)(serve.serve)
app.command(cls=Command, epilog=models.EXAMPLES)(models.models)
app.add_typer(plot.plot, name="plot", cls=Group, epilog=plot.EXAMPLES)
app.add_typer(cache.cache, name="cache", cls=Group, epilog=cache.EXAMPLES)
app.command(cls=Command, epilog=doctor.EXAMPLES)(doctor.doctor)
