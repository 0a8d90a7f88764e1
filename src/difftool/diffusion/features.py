"""What a step graph can compute beyond the plain row; `difftool.diffusion.program` says how."""

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
