"""Read ermongroup/ncsnv2: NCSNv2, NCSNv2Deeper and NCSNv2Deepest of Song and Ermon 2020."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from difftool.diffusion.calls import NetworkCall
from difftool.diffusion.schedules import NoiseSchedule, geometric, karras
from difftool.diffusion.spec import ModelSpec
from difftool.importers import ncsn
from difftool.importers.format import Format, Imported
from difftool.importers.settings import Chosen, Setting, Settings, fixed
from difftool.importers.source import Source
from difftool.importers.tensors import (
    Weights,
    as_weights,
    check_sigmas,
    find_size,
    listed_step,
    take,
    with_sigmas,
)

RESCALED: Final = Setting("data.rescaled", bool, default=False)
LEVELS: Final = Setting("model.num_classes", int, usual="232 for CIFAR-10", also=("num_classes",))
SIGMA_BEGIN: Final = replace(ncsn.SIGMA_BEGIN, usual="50 for CIFAR-10")
DIST: Final = Setting("model.sigma_dist", str, "geometric", choices=("geometric", "uniform"))
STEP_SIZE: Final = replace(
    ncsn.STEP_SIZE, default=None, usual="6.2e-6 for CIFAR-10, 3.3e-6 for CelebA"
)
STEPS_EACH: Final = replace(ncsn.STEPS_EACH, default=5)
DENOISE: Final = Setting("sampling.denoise", bool, default=True)
# Options of the published code for which our network has one value.
FIXED: Final = (
    ncsn.LOGIT,
    fixed("model.normalization", "InstanceNorm++"),
    fixed("model.nonlinearity", "elu"),
    fixed("model.spec_norm", False),
)

_EMA: Final = 4  # its place in the list


def _recognizes(source: Source) -> bool:
    return as_weights(source.first).keys() >= {"begin_conv.weight", "normalizer.alpha"}


def _read(source: Source, settings: Settings) -> Imported:
    state = as_weights(source.first)
    sigmas = state.pop("sigmas", None)
    levels = with_sigmas(sigmas, LEVELS, SIGMA_BEGIN, ncsn.SIGMA_END)
    chosen = settings.choose(
        ncsn.IMAGE_SIZE, *levels, DIST, RESCALED, STEP_SIZE, STEPS_EACH, DENOISE, *FIXED
    )
    schedule = _schedule(chosen)
    if sigmas is not None:
        check_sigmas(sigmas, schedule)
    ema = as_weights(source.item(_EMA))
    in_channels = find_size(state, "end_conv.bias", "end_conv.weight")
    multipliers = _multipliers(state)
    arguments = {
        "in_channels": in_channels,
        "channels": find_size(state, "begin_conv.weight"),
        "multipliers": multipliers,
        "centered": chosen[RESCALED],
    }
    network = NetworkCall("ncsnv2", arguments)
    stages, refines = _numbers(len(multipliers))
    name = partial(ncsn.refinenet_name, stages=stages, refines=refines)
    size = chosen[ncsn.IMAGE_SIZE]
    return Imported(
        spec=ModelSpec(
            shape=(in_channels, size, size),
            schedule=schedule,
            parameterization="scaled_score",
            cond="level",
            data_range=(-1.0, 1.0) if chosen[RESCALED] else (0.0, 1.0),
        ),
        network=network,
        tensors=take(ema or state, network, name),
        sampler=ncsn.annealed_langevin(chosen, len(schedule), denoise=chosen[DENOISE]),
        weights="ema" if ema else "raw",
        chosen=chosen,
        files=source.files,
        step=listed_step(source),
    )


def _multipliers(state: Weights) -> list[int]:
    """Return the relative widths of the stages: 4 in NCSNv2, 5 in Deeper, 6 in Deepest."""
    count = 4 + any(name.startswith("res5.") for name in state)
    count += any(name.startswith("res31.") for name in state)
    base = find_size(state, "begin_conv.weight")
    widths = [
        find_size(state, f"res{n}.1.conv1.bias", f"res{n}.1.conv1.weight", f"res{n}.1.conv2.bias")
        for n in _numbers(count)[0]
    ]
    return [width // base for width in widths]


def _numbers(count: int) -> tuple[list[str], list[str]]:
    """Return the format's numbers of `count` stages and their refine blocks, in running order."""
    if count == 6:
        return ["1", "2", "3", "31", "4", "5"], ["1", "2", "31", "3", "4", "5"]
    numbers = [str(number + 1) for number in range(count)]
    return numbers, numbers


def _schedule(chosen: Chosen) -> NoiseSchedule:
    spaced: Callable[..., NoiseSchedule] = geometric
    if chosen[DIST] == "uniform":
        spaced = partial(karras, rho=1)
    return spaced(
        levels=chosen[LEVELS], sigma_min=chosen[ncsn.SIGMA_END], sigma_max=chosen[SIGMA_BEGIN]
    )


FORMAT: Final = Format(
    title="ermongroup/ncsnv2",
    sign="a list whose first item has begin_conv and normalizer.alpha",
    recognizes=_recognizes,
    read=_read,
)
