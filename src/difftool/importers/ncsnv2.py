"""Read ermongroup/ncsnv2: NCSNv2, NCSNv2Deeper and NCSNv2Deepest of Song and Ermon 2020."""

from dataclasses import replace
from typing import Any, Final

from difftool.diffusion.calls import NetworkCall
from difftool.diffusion.schedules import NoiseSchedule, geometric, karras
from difftool.diffusion.spec import ModelSpec
from difftool.importers import ncsn
from difftool.importers.format import Format, Imported
from difftool.importers.settings import Chosen, Setting, Settings
from difftool.importers.source import Source
from difftool.importers.tensors import (
    Wanted,
    Weights,
    as_decimal,
    as_weights,
    check_sigmas,
    find_size,
    listed_step,
    outline,
    take,
)

RESCALED: Final = Setting("data.rescaled", bool, default=False)
LEVELS: Final = Setting("model.num_classes", int, usual="232 for CIFAR-10", also=("num_classes",))
SIGMA_BEGIN: Final = replace(ncsn.SIGMA_BEGIN, usual="50 for CIFAR-10")
DIST: Final = Setting(
    "model.sigma_dist", str, default="geometric", choices=("geometric", "uniform")
)
STEP_SIZE: Final = Setting(
    ncsn.STEP_SIZE.name, float, usual="6.2e-6 for CIFAR-10, 3.3e-6 for CelebA"
)
STEPS_EACH: Final = Setting(ncsn.STEPS_EACH.name, int, default=5)
DENOISE: Final = Setting("sampling.denoise", bool, default=True)
# Options of the published code for which our network has one value.
FIXED: Final = (
    ncsn.LOGIT,
    Setting("model.normalization", str, default="InstanceNorm++", choices=("InstanceNorm++",)),
    Setting("model.nonlinearity", str, default="elu", choices=("elu",)),
    Setting("model.spec_norm", bool, default=False, choices=(False,)),
)

_EMA: Final = 4  # its place in the list


def _recognizes(source: Source) -> bool:
    state = ncsn.first_weights(source)
    return state is not None and {"begin_conv.weight", "normalizer.alpha"} <= state.keys()


def _read(source: Source, settings: Settings) -> Imported:
    state = ncsn.first_weights(source) or {}
    sigmas = state.pop("sigmas", None)
    levels, begin, end = LEVELS, SIGMA_BEGIN, ncsn.SIGMA_END
    if sigmas is not None and sigmas.ndim == 1 and len(sigmas):
        levels = replace(levels, default=len(sigmas))
        begin = replace(begin, default=as_decimal(sigmas[0]))
        end = replace(end, default=as_decimal(sigmas[-1]))
    chosen = settings.choose(
        ncsn.IMAGE_SIZE, levels, begin, end, DIST, RESCALED, STEP_SIZE, STEPS_EACH, DENOISE, *FIXED
    )
    schedule = _schedule(chosen)
    if sigmas is not None:
        check_sigmas(sigmas, schedule)
    ema = as_weights(source.item(_EMA))
    weights = state if ema is None else ema
    in_channels = find_size(state, "end_conv.bias", "end_conv.weight")
    arguments: dict[str, Any] = {
        "in_channels": in_channels,
        "channels": find_size(state, "begin_conv.weight"),
        "multipliers": _multipliers(state),
        "centered": chosen[RESCALED],
    }
    size = chosen[ncsn.IMAGE_SIZE]
    return Imported(
        spec=ModelSpec(
            shape=(in_channels, size, size),
            schedule=schedule,
            parameterization="scaled_score",
            cond="level",
            data_range=(-1.0, 1.0) if chosen[RESCALED] else (0.0, 1.0),
        ),
        network=NetworkCall("ncsnv2", arguments),
        tensors=take_ncsnv2(weights, arguments),
        sampler=ncsn.annealed_langevin(chosen, len(schedule), denoise=chosen[DENOISE]),
        weights="raw" if ema is None else "ema",
        chosen=chosen,
        files=source.files,
        step=listed_step(source),
    )


def take_ncsnv2(state: Weights, arguments: dict[str, Any]) -> Weights:
    """Return the tensors of the NCSNv2 with these arguments."""
    stages, refines = _numbers(len(arguments["multipliers"]))
    wanted = {
        name: Wanted(ncsn.refinenet_name(name, stages, refines), tuple(value.shape))
        for name, value in outline(NetworkCall("ncsnv2", arguments)).state_dict().items()
    }
    return take(state, wanted)


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
    levels = chosen[LEVELS]
    least, most = chosen[ncsn.SIGMA_END], chosen[SIGMA_BEGIN]
    if chosen[DIST] == "uniform":
        return karras(levels=levels, sigma_min=least, sigma_max=most, rho=1)
    return geometric(levels=levels, sigma_min=least, sigma_max=most)


FORMAT: Final = Format(
    title="ermongroup/ncsnv2",
    sign="a list whose first item has begin_conv and normalizer.alpha",
    recognizes=_recognizes,
    read=_read,
)
