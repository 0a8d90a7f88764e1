"""The GPUs and the TensorRT that an engine is built for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from difftool.errors import MissingDependencyError, UsageError
from difftool.runtime.variants import (
    Variant,
    install_line,
    installed_variants,
    not_installed,
    open_variant,
)

CURRENT: Final = "current"

Profile = tuple[int, int, int]


@dataclass(frozen=True)
class Target:
    """A TensorRT variant, and the GPUs to build for, named as in an engine's key."""

    variant: Variant
    gpus: tuple[str, ...]


def resolve_target(gpus: Sequence[str] = (CURRENT,)) -> Target:
    """Return the target of "current" alone, or of compute capabilities such as "sm89".

    Raises:
        MissingDependencyError: the TensorRT that is needed is not installed, or there is no GPU for
            "current".
        UsageError: TensorRT cannot build for one of the GPUs ahead of time.
    """
    variants = installed_variants()
    if not variants:
        raise not_installed()
    names = tuple(dict.fromkeys(name.strip().lower() for name in gpus if name.strip()))
    if names == (CURRENT,):
        return _here(variants)
    if not names:
        raise UsageError("`gpus` names no GPU", "give sm89, or sm89,sm120, or current")
    rtx = open_variant("tensorrt-rtx")
    if unknown := [name for name in names if name not in rtx.ahead_of_time]:
        raise UsageError(
            f"{rtx.title} {rtx.version} does not build for {', '.join(unknown)}",
            f"it builds for {', '.join(rtx.ahead_of_time)}; for any other GPU, install TensorRT on "
            f"its machine and use `gpus=current` there: {install_line('tensorrt')}",
        )
    return Target(rtx, tuple(sorted(names, key=lambda name: int(name.removeprefix("sm")))))


def _here(variants: list[Variant]) -> Target:
    from difftool.runtime.cuda.cuda_device import open_device

    try:
        device = open_device()
    except MissingDependencyError as error:
        known = next((f.ahead_of_time for f in variants if f.ahead_of_time), ())
        hint = f"name the GPUs to build for: `gpus={','.join(known)}`" if known else error.hint
        raise MissingDependencyError(error.message, hint) from error
    capability = device.arch.replace("_", "")
    for variant in variants:
        if capability in variant.ahead_of_time:
            return Target(variant, (capability,))
        if variant.name == "tensorrt":
            return Target(variant, (device.name,))
    raise MissingDependencyError(
        f"{variants[0].title} does not build for {device.name} ({capability})",
        f"run: {install_line('tensorrt')}",
    )
