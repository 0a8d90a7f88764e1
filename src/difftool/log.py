"""What the library says of its work, through the logger "difftool" of the standard library.

`logging` takes a good part of the time that a bundle takes to open, and who listens has imported
it. As long as nobody has, nothing is said; and nothing reaches stderr unless a handler is added.
"""

import sys


class Log:
    """The logger of a module, by its name: `Log(__name__)`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, message: str, *arguments: object) -> None:
        """Say a detail."""
        self._say("DEBUG", message, arguments)

    def info(self, message: str, *arguments: object) -> None:
        """Say what is done."""
        self._say("INFO", message, arguments)

    def warning(self, message: str, *arguments: object) -> None:
        """Say that something is not as it was asked for."""
        self._say("WARNING", message, arguments)

    def _say(self, level: str, message: str, arguments: tuple[object, ...]) -> None:
        if "logging" not in sys.modules:
            return
        import logging

        top = logging.getLogger("difftool")
        if not top.handlers:  # or the root's last resort would print warnings
            top.addHandler(logging.NullHandler())
        logger = logging.getLogger(self._name)
        logger.log(getattr(logging, level), message, *arguments, stacklevel=3)
