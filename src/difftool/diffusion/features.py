"""The features of a step graph, which go beyond the plain row of `difftool.diffusion.program`."""

from enum import StrEnum


class Feature(StrEnum):
    """A feature of a step graph. Bundles and `--with` call it by its value.

    - KNOWN: D is replaced by known values
    - GUIDANCE: classifier-free guidance
    - NORMS: steps whose size adapts to norms
    """

    KNOWN = "known"
    GUIDANCE = "guidance"
    NORMS = "norms"
