"""Turn any exception into one line, a hint and an exit code."""

import errno
import re
from collections.abc import Sequence
from typing import Final

from typer import TyperException

from difftool.errors import (
    Cancelled,
    DifftoolError,
    MissingDependencyError,
    ResourceError,
    UsageError,
)

CLOSED_PIPE: Final = 141  # the exit code that shells give a program ended by SIGPIPE

# The extra that installs a package. `difftool.runtime.backends.table` has the packages of backends.
_EXTRAS: Final = {
    "accelerate": "train",
    "datasets": "data",
    "huggingface_hub": "import",
    "onnx": "compile",
    "onnx_ir": "compile",
    "onnxscript": "export",
    "prometheus_client": "serve",
    "pyarrow": "data",
    "ray": "ray",
    "sklearn": "data",
    "sse_starlette": "serve",
    "starlette": "serve",
    "tensorboard": "train",
    "uvicorn": "serve",
    "yaml": "import",
}
# These are in several extras: the command decides which one is named.
_SHARED: Final = ("safetensors", "torch")
_EXTRA_BY_COMMAND: Final = {
    "distill": "train",
    "import": "import",
    "likelihood": "train",
    "train": "train",
}

# The library names its arguments in backquotes, such as `max_work` or `precision=fp32`.
_ARGUMENT: Final = re.compile(r"`([\w.]+)(?:=([^`]*))?`")
_OPTIONS: Final = {  # the options whose names are not those of their arguments
    "features": "--with",
    "format": "--as",
    "gpus": "--gpu",
    "limits": "--max-memory",
    "settings": "--set",
    "trusted": "--trust",
}


class Bug(DifftoolError):
    """An exception that nobody foresaw."""

    exit_code = 101


def as_fault(error: BaseException, arguments: Sequence[str]) -> DifftoolError:
    """Return the error to print for an exception that a command with `arguments` raised."""
    match error:
        case UsageError() if not error.hint:
            return UsageError(error.message, f"see: difftool {arguments[0]} --help")
        case DifftoolError():
            return error
        case TyperException():
            context = getattr(error, "ctx", None)
            path = context.command_path if context else "difftool"
            return UsageError(error.format_message(), f"see: {path} --help")
        case KeyboardInterrupt():
            return Cancelled("interrupted")
        case MemoryError():
            return ResourceError("out of memory", "work on fewer samples at a time")
        case ModuleNotFoundError() if extra := _find_extra(error, arguments):
            package = str(error.name).partition(".")[0]
            return MissingDependencyError.extra(package, extra)
        case OSError(errno=errno.ENAMETOOLONG):
            return UsageError(f"{error.filename}: the name is too long", "give a shorter one")
        case OSError():
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            return ResourceError(what, "check the free space and permissions")
        case _:
            what = f"a bug in difftool: {type(error).__name__}: {error}"
            return Bug(what, "please report it with what the same command prints with --debug")


def _find_extra(error: ModuleNotFoundError, arguments: Sequence[str]) -> str | None:
    package = str(error.name).partition(".")[0]
    if package in _SHARED:
        return _EXTRA_BY_COMMAND.get(arguments[0], "export")
    if package in _EXTRAS:
        return "export" if arguments[0] == "export" else _EXTRAS[package]
    from difftool.runtime import BACKENDS

    needed = {name: extra for row in BACKENDS for name, extra in row.packages.items()}
    return needed.get(package.replace("_", "-"))


def in_options(text: str) -> str:
    """Replace the library's arguments in a message by the options that set them."""

    def option(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        if "." in name:  # a setting, such as data.size
            return f"--set {name}={value}" if value else name
        flag = _OPTIONS.get(name) or f"--{name.replace('_', '-')}"
        return f"{flag} {value}" if value else flag if len(name) > 1 else f"-{name}"

    return _ARGUMENT.sub(option, text)
