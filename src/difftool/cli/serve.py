"""difftool serve: answer HTTP requests for samples."""

import logging
import os
import sys
from json import dumps
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from difftool.cli import options
from difftool.cli.console import narrate
from difftool.errors import UsageError, first_line

EXAMPLES = """\b
Examples:
  difftool serve ddpm-mnist ncsn-mnist --port 8000
  difftool serve digits=runs/digits/bundle --max-batch 16 --queue 200
  difftool serve ddpm-mnist --host 0.0.0.0 --api-key-file keys.txt
  difftool serve runs/digits/bundle --reload
"""


def serve(
    models: Annotated[
        list[str],
        Argument(
            metavar="[NAME=]MODEL...",
            help="Folders of bundles, or names of shipped models; a request names them by their "
            "last part, or by NAME.",
        ),
    ],
    host: Annotated[
        str, Option(metavar="ADDRESS", help="Address to listen at; only this machine by default.")
    ] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port; 0 is any that is free.")] = 8000,
    max_batch: Annotated[
        int | None,
        Option(
            metavar="COUNT",
            help="Samples of a model that share a step; by default what the machine likes.",
        ),
    ] = None,
    queue: Annotated[
        int, Option(metavar="COUNT", min=1, help="Requests of a model that may wait to begin.")
    ] = 64,
    batching: Annotated[
        str,
        Option(
            metavar="step|request|off",
            help="When samples may join a running batch: at any step, only together with others "
            "of the same program, or never.",
        ),
    ] = "step",
    api_key_file: Annotated[
        Path | None,
        Option(metavar="FILE", help="File of keys, one a line; whoever sends one may draw."),
    ] = None,
    insecure: Annotated[
        bool, Option("--insecure", help="Listen to other machines without keys.")
    ] = False,
    drain_timeout: Annotated[
        float,
        Option(
            metavar="SECONDS",
            min=0,
            help="Time that running requests get when SIGTERM ends the server.",
        ),
    ] = 30.0,
    deadline: Annotated[
        float, Option(metavar="SECONDS", help="Limit of one request's time, its wait included.")
    ] = 600.0,
    max_n: Annotated[int, Option(metavar="COUNT", help="Limit of samples in a request.")] = 64,
    max_steps: Annotated[int, Option(metavar="COUNT", help="Limit of steps.")] = 2000,
    max_work: Annotated[
        int,
        Option(
            metavar="COUNT",
            help="Limit of samples times steps times the numbers in a sample, of one request.",
        ),
    ] = 10**9,
    max_body: Annotated[int, Option(metavar="BYTES", help="Limit of a request's body.")] = 1 << 20,
    reload: Annotated[
        bool, Option("--reload", help="At SIGHUP, load the bundles again that were replaced.")
    ] = False,
    backend: options.Backend = None,
    precision: options.Precision = "fp32",
    device: options.Device = 0,
    threads: options.Threads = None,
    trust: options.Trust = None,
) -> None:
    """Serve models over HTTP, to many callers at once.

    Images as OpenAI's clients ask for them, and arrays. Requests of different samplers, steps and
    labels share steps. One line of JSON a request goes to stderr. SIGTERM and Ctrl-C let running
    requests end.
    """
    from difftool.bundle import Bundle
    from difftool.runtime import Model, SchedulerSettings, load, open_bundle
    from difftool.serve import Application, ServeSettings, read_keys, require_safe
    from difftool.serve import serve as run

    keys = () if api_key_file is None else read_keys(api_key_file)
    require_safe(host, keys=keys, insecure=insecure)
    settings = ServeSettings(
        max_n=max_n,
        max_steps=max_steps,
        max_work=max_work,
        max_body=max_body,
        deadline=deadline,
        keys=keys,
    )
    # `batching` is checked when the settings are made.
    scheduling = SchedulerSettings(batching=batching, queue=queue)  # type: ignore[arg-type]
    paths: dict[str, str] = {}
    for name, path in map(_named, models):
        if name in paths:
            raise UsageError(f"two models are called {name}", f"give one a name: NAME={path}")
        paths[name] = path

    def opened(bundle: Bundle) -> Model:
        model = load(
            bundle,
            backend=backend,
            precision=precision,
            threads=threads,
            device=device,
            max_batch=max_batch,
            trust=trust or (),
        )
        model.scheduler(scheduling)
        return model

    def replaced(name: str) -> Model | None:
        bundle = open_bundle(paths[name])
        served = application.service.models[name].bundle.manifest.digest
        return None if bundle.manifest.digest == served else opened(bundle)

    # Nothing else keeps these models, so that one that is replaced can go.
    application = Application(
        {name: opened(open_bundle(path)) for name, path in paths.items()}, settings
    )
    _log_requests()
    run(
        application,
        host=host,
        port=port,
        drain_timeout=drain_timeout,
        say=narrate,
        reload=replaced if reload else None,
    )


def _named(word: str) -> tuple[str, str]:
    """Return a model's name, and where it is."""
    name, equals, path = word.partition("=")
    if not equals or Path(word).exists():  # a folder's own name may have one
        name, path = Path(os.path.abspath(word)).name, word
    if not name or "/" in name:
        raise UsageError(f"{word!r} gives a model no name", "write NAME=MODEL, without / in NAME")
    return name, path


def _log_requests() -> None:
    """Print the log of requests, which is JSON, and make JSON of what else goes wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    for name, level in (("difftool.serve", logging.INFO), ("uvicorn", logging.WARNING)):
        log = logging.getLogger(name)
        log.addHandler(handler)
        log.setLevel(level)
        log.propagate = False


class _Lines(logging.Formatter):
    """Records as lines of JSON; that of a request is one already."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.levelno == logging.INFO:
            return message
        error = record.exc_info[1] if record.exc_info else None
        cause = "" if error is None else f"{type(error).__name__}: {first_line(error)}"
        return dumps({"level": record.levelname.lower(), "message": message, "error": cause})
