"""`python -m difftool` is the `difftool` command; `accelerate launch -m difftool` needs it."""

import sys

from difftool.cli import main

sys.exit(main())
