"""The errors a user can meet: one line that says what is wrong, and a hint what to do."""


class DifftoolError(Exception):
    """Base of all errors that difftool raises on purpose.

    `message` is one line; `hint`, where there is one, says what to do about it. `exit_code` is what
    the command line exits with. `code` is a word for programs that stays when messages change;
    whatever is refused of a bundle has one.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "", *, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code

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
        """The error for `package`, which `pip install 'difftool[extra]'` brings."""
        return cls(f"{package} is not installed", f"run: pip install 'difftool[{extra}]'")


class ResourceError(DifftoolError):
    """Memory, disk space or a limit ran out."""

    exit_code = 5


class Cancelled(DifftoolError):
    """A hook or the user stopped a run before its end."""

    exit_code = 130


def first_line(error: BaseException) -> str:
    """What an error of another library says, short enough for one line."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]
