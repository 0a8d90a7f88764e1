"""The errors that a user can meet: one line says what is wrong, and a hint says what to do."""

RELEASED = False  # on the package index; the first release sets it, see CONTRIBUTING.md
CPU_TORCH = "--extra-index-url https://download.pytorch.org/whl/cpu"  # an option of pip
_WITH_TORCH = ("eval", "export", "import", "train")  # extras that bring PyTorch

MOST_CHARACTERS = 700  # of a message or a hint, whatever it quotes
_QUOTED = 200  # characters of one value in a message
_CUT = " ... "
# Parts of the messages in which C++, ONNX Runtime, OpenVINO, oneDNN, PyTorch, CUDA and its
# libraries say that memory ran out. They have no exception class in common.
_SIGNS = (
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "out_of_memory",
    "outofmemory",
    "failed to allocate",
    "can't allocate",
    "cannot allocate",
    "could not allocate",
    "alloc_failed",
    "memory_allocation",
    "memoryallocation",
)


class DifftoolError(Exception):
    """Base of all errors that difftool raises on purpose.

    `message` is one line; `hint`, if there is one, says what to do about it. Both are cut to
    MOST_CHARACTERS. `exit_code` is the command line's exit code. `code` is a word for programs,
    which stays when messages change; all errors about a bundle have one.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "", *, code: str = "") -> None:
        self.message, self.hint, self.code = short(message), short(hint), code
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class CheckFailed(DifftoolError):
    """A check ran and its result is out of bounds."""

    exit_code = 1


class UsageError(DifftoolError):
    """An argument, option or configuration has no meaning."""

    exit_code = 2


class ArtefactError(DifftoolError):
    """A checkpoint, bundle, program or data file is damaged, too new or not what it should be."""

    exit_code = 3


class MissingDependencyError(DifftoolError):
    """A backend or an optional package is not installed."""

    exit_code = 4

    @classmethod
    def extra(cls, package: str, extra: str) -> "MissingDependencyError":
        """Return the error for `package`, which an extra of difftool installs."""
        hint = install_hint(extra)
        if extra in _WITH_TORCH:
            hint += f"; without an NVIDIA GPU add {CPU_TORCH}, or gigabytes of CUDA come with it"
        return cls(f"{package} is not installed", hint)


class ResourceError(DifftoolError):
    """Memory, disk space or a limit ran out."""

    exit_code = 5


class Busy(ResourceError):
    """As many requests are waiting as may wait."""


class DeadlineExceeded(ResourceError):
    """A request was not done by its deadline."""


class Cancelled(DifftoolError):
    """A hook or the user stopped a run before its end."""

    exit_code = 130


def pip_install(extras: str, options: str = "") -> str:
    """Return the command that installs extras, such as "cpu,train", with options of pip.

    Until the first release it installs from a clone.
    """
    name = "difftool" if RELEASED else "."
    return " ".join(filter(None, ["pip install", options, f"'{name}[{extras}]'"]))


def install_hint(extras: str, options: str = "") -> str:
    """Return a hint to install extras of difftool."""
    where = "" if RELEASED else " in your clone of difftool"
    return f"run{where}: {pip_install(extras, options)}"


def quoted(value: object) -> str:
    """Return the repr of a user's or file's value, short enough for a message."""
    try:
        return short(repr(value), _QUOTED)
    except (RecursionError, ValueError):  # a number has more digits than Python prints
        kind = type(value).__name__
        return f"{'an' if kind == 'int' else 'a'} {kind} that is too large to print"


def short(text: str, most: int = MOST_CHARACTERS) -> str:
    """Put a text on one line, and leave its middle out if it has more than `most` characters."""
    line = " ".join(text.splitlines())
    if len(line) <= most:
        return line
    end = most // 4
    return line[: most - end - len(_CUT)] + _CUT + line[-end:]


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error, at most 200 characters."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def is_out_of_memory(error: BaseException) -> bool:
    """Tell if an error says that memory ran out."""
    said = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(sign in said for sign in _SIGNS)
