"""The loggers of difftool's modules, below the logger "difftool".

`import difftool` does not load this file, because importing `logging` takes too long: the command
line must first be ready for signals.
"""

import logging

# Without a handler, Python would print a library's warnings if the program sets up no logging.
logging.getLogger("difftool").addHandler(logging.NullHandler())

logger = logging.getLogger
