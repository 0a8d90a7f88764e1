"""The GPUs and the TensorRT that an engine is built for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from difftool.errors import MissingDependencyError, UsageError
from difftool.runtime.cuda import cuda_device
from difftool.runtime.variants import (
    Variant,
    install_line,
    installed_variants,
    not_installed,
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

    TensorRT for RTX builds for any of those that it knows. TensorRT builds for the GPU that is
    here, so its compute capability means the same as "current".

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
    variant = variants[0]
    if all(name in variant.ahead_of_time for name in names):
        return Target(variant, tuple(sorted(names, key=lambda name: int(name.removeprefix("sm")))))
    if variants[-1].name == "tensorrt":
        return _on_site(variants[-1], names)
    unknown = [name for name in names if name not in variant.ahead_of_time]
    raise UsageError(
        f"{variant.title} {variant.version} does not build for {', '.join(unknown)}",
        f"it builds for {', '.join(variant.ahead_of_time)}; for any other GPU, install TensorRT on "
        f"its machine: {install_line('tensorrt')}",
    )


def _on_site(variant: Variant, names: tuple[str, ...]) -> Target:
    """Return the target of the GPU that is here, if that is the only one that is named."""
    named = ", ".join(names)
    elsewhere = f"run it on a machine with {named}, or: {install_line('tensorrt-rtx')}"
    try:
        device = cuda_device.open_device()
    except MissingDependencyError as error:
        what = f"{variant.title} builds for {named} only on such a GPU: {error.message}"
        raise MissingDependencyError(what, elsewhere) from error
    capability = _capability(device)
    if names != (capability,):
        what = (
            f"the GPU here is {device.name} ({capability}), and {variant.title} builds for no other"
        )
        raise UsageError(what, f"use `gpus=current`; for {named}, {elsewhere}")
    return Target(variant, (_name(variant, device),))


def _capability(device: cuda_device.CudaDevice) -> str:
    """Return a device's compute capability, such as "sm90"."""
    return device.arch.replace("_", "")


def _name(variant: Variant, device: cuda_device.CudaDevice) -> str:
    """Return what an engine of TensorRT's that is built here is for."""
    return _capability(device) if variant.by_capability else device.name


def _here(variants: list[Variant]) -> Target:
    try:
        device = cuda_device.open_device()
    except MissingDependencyError as error:
        known = next((f.ahead_of_time for f in variants if f.ahead_of_time), ())
        hint = f"name the GPUs to build for: `gpus={','.join(known)}`" if known else error.hint
        raise MissingDependencyError(error.message, hint) from error
    capability = _capability(device)
    for variant in variants:
        if capability in variant.ahead_of_time:
            return Target(variant, (capability,))
        if variant.name == "tensorrt":
            return Target(variant, (_name(variant, device),))
    raise MissingDependencyError(
        f"{variants[0].title} does not build for {device.name} ({capability})",
        f"run: {install_line('tensorrt')}",
    )
