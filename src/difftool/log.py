"""The loggers of difftool's modules, below the logger "difftool".

`import difftool` does not load this file: `logging` takes longer to import than all that stands
before the command line hears signals.
"""

import logging

# Without a handler, Python would print the warnings of a library to which nobody listens.
logging.getLogger("difftool").addHandler(logging.NullHandler())

logger = logging.getLogger
