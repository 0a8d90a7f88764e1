"""Read lucidrains/denoising-diffusion-pytorch: the files model-N.pt that its Trainer saves."""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.diffusion.schedules import NoiseSchedule, cosine, from_betas, linear, sigmoid
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError, UsageError
from difftool.importers.format import Format, Imported
from difftool.importers.settings import Chosen, Setting, Settings, fixed
from difftool.importers.source import Source
from difftool.importers.tensors import Weights, as_step, as_weights, find_size, replace_words, take

IMAGE_SIZE: Final = Setting("image_size", int, usual="as given to GaussianDiffusion")
SAMPLING_STEPS: Final = Setting("sampling_timesteps", int)
ETA: Final = Setting("ddim_sampling_eta", float, default=0.0)
GROUPS: Final = Setting("resnet_block_groups", int, default=8)
# Options of the library that leave no trace in the file, and for which we have one value.
FIXED: Final = (
    fixed("auto_normalize", True),
    fixed("sinusoidal_pos_emb_theta", 10000.0),
)

# The first version whose attention has a memory, and the first that does not exist yet.
_SINCE, _BEFORE = (1, 9), (3, 0)
_SIGNS: Final = {"model.init_conv.weight", "model.downs.0.0.block1.proj.weight"}
# Buffers of GaussianDiffusion; all follow from betas.
_BUFFERS: Final = {
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "loss_weight",
}


def _recognizes(source: Source) -> bool:
    content = source.content
    return isinstance(content, Mapping) and as_weights(content.get("model")).keys() >= _SIGNS


def _average(content: Mapping[str, Any]) -> Weights:
    """Return the moving average; nothing until it has begun, when it is the initial network."""
    ema = as_weights(content.get("ema"))
    if "initted" in ema and not bool(ema["initted"].all()):
        return {}
    prefix = "ema_model."
    return {n.removeprefix(prefix): value for n, value in ema.items() if n.startswith(prefix)}


def _read(source: Source, settings: Settings) -> Imported:
    version = _version(source.content)
    average = _average(source.content)
    state = average or as_weights(source.content["model"])
    unet = {name.removeprefix("model."): v for name, v in state.items() if name not in _BUFFERS}
    schedule = _schedule(state)
    arguments = _network_arguments(unet)
    # Only the norms of version 1 are in groups.
    grouped = "downs.0.0.block1.norm.weight" in unet
    sampling = replace(SAMPLING_STEPS, default=len(schedule))
    chosen = settings.choose(IMAGE_SIZE, sampling, ETA, *([GROUPS] if grouped else []), *FIXED)
    if grouped:
        arguments["groups"] = chosen[GROUPS]
    network = NetworkCall("linear_attention_unet", arguments)
    name = partial(_source_name, levels=len(arguments["multipliers"]))
    channels, size = arguments["in_channels"], chosen[IMAGE_SIZE]
    learned = arguments["out_channels"] == 2 * channels
    return Imported(
        spec=ModelSpec(
            shape=(channels, size, size),
            schedule=schedule,
            # LearnedGaussianDiffusion always reads the output as noise, whatever its objective.
            parameterization="epsilon" if learned else _parameterization(state, schedule),
            cond="timestep",
            data_range=(-1.0, 1.0),
            learned_variance=learned,
        ),
        network=network,
        tensors=take(_with_convolutions(unet), network, name),
        sampler=_sampler(chosen, len(schedule), learned),
        weights="ema" if average else "raw",
        chosen=chosen,
        files=source.files,
        step=as_step(source.content.get("step")),
        notes=(f"saved by version {version}",),
    )


def _version(content: Mapping[str, Any]) -> str:
    """Return the library's version; ArtefactError if that version has another network."""
    version = content.get("version")
    numbers = re.match(r"(\d{1,3})\.(\d{1,3})", version) if isinstance(version, str) else None
    if not numbers or not _SINCE <= (int(numbers[1]), int(numbers[2])) < _BEFORE:
        raise ArtefactError(
            f"version {version} of denoising-diffusion-pytorch has saved it, and difftool imports "
            "files of 1.9 to 2.x",
            "save it again with such a version",
        )
    return str(version)


def _network_arguments(state: Weights) -> dict[str, Any]:
    """Return the constructor arguments of these tensors' U-Net."""
    if "time_mlp.0.weights" in state:
        raise ArtefactError(
            "the network has learned_sinusoidal_cond or random_fourier_features, which difftool "
            "does not import",
            "import one with the usual time embedding",
        )
    found = [int(m[1]) for name in state if (m := re.match(r"downs\.(\d{1,3})\.", name))]
    levels = 1 + max(found, default=0)
    channels = find_size(state, "time_mlp.1.weight", axis=1)
    widths = [
        find_size(state, f"downs.{level}.3.{'1.' if level < levels - 1 else ''}bias")
        for level in range(levels)
    ]
    # [2, heads, head channels, slots] each; full attention has the last two the other way round.
    memories = [_shape(state, f"downs.{level}.2.mem_kv", 4) for level in range(levels)]
    full = [level for level in range(levels) if f"downs.{level}.2.to_out.weight" in state]
    in_channels, out_channels = _ends(state)
    return {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "channels": channels,
        "first_channels": find_size(state, "init_conv.weight"),
        "multipliers": [width // channels for width in widths],
        "full": full,
        "heads": [shape[1] for shape in memories],
        "head_channels": [shape[3 if i in full else 2] for i, shape in enumerate(memories)],
        "memory": memories[0][2 if 0 in full else 3],
    }


def _ends(state: Weights) -> tuple[int, int]:
    """Return the channels that the network takes and gives."""
    takes = find_size(state, "init_conv.weight", axis=1)
    gives = find_size(state, "final_conv.weight")
    if takes == 2 * gives:
        raise ArtefactError(
            "the network has self_condition: it takes its own last estimate beside the sample",
            "import one that was trained without it",
        )
    if gives not in (takes, 2 * takes):
        raise ArtefactError(
            f"the network takes {takes} channels and gives {gives}",
            "import one that gives as many as it takes, or twice as many with learned_variance",
        )
    return takes, gives


def _with_convolutions(state: Weights) -> Weights:
    """Return the tensors with 2x2 convolutions of stride 2.

    The library halves by pixel unshuffling and a 1x1 convolution, [out, 4 * in, 1, 1]. Ours has the
    same weights in another shape.
    """
    halves = re.compile(r"downs\.\d+\.3\.1\.weight")
    return {
        name: value.reshape(len(value), -1, 2, 2)
        if halves.fullmatch(name) and value.ndim > 1 and value.numel() and value.shape[1] % 4 == 0
        else value
        for name, value in state.items()
    }


def _source_name(name: str, levels: int) -> str:
    """Return the format's name of a tensor of our U-Net with `levels` levels."""
    words = {
        "conv_in": "init_conv",
        "conv_out": "final_conv",
        "middle.0": "mid_block1",
        "middle.1": "mid_attn",
        "middle.2": "mid_block2",
        "last.": "final_res_block.",
        "conv1": "block1.proj",
        "norm1": "block1.norm",
        "conv2": "block2.proj",
        "norm2": "block2.norm",
        "shortcut": "res_conv",
        "projection": "mlp.1",
        "memory": "mem_kv",
        ".qkv.": ".to_qkv.",
        ".out.": ".to_out.",
        ".gain": ".g",
    }
    name = re.sub(r"^(down|up)\.", r"\1s.", name)
    name = re.sub(r"^embedding_mlp\.(\d)", lambda m: f"time_mlp.{int(m[1]) + 1}", name)
    if not name.startswith(f"downs.{levels - 1}."):  # the last level has no unshuffling
        name = re.sub(r"^(downs\.\d+\.3)\.", r"\1.1.", name)
    return replace_words(name, words)


def _shape(state: Weights, name: str, ndim: int) -> tuple[int, ...]:
    if name not in state or state[name].ndim != ndim:
        raise ArtefactError(
            f"{name} is missing or does not have {ndim} axes", "check that the file is whole"
        )
    return tuple(state[name].shape)


def _schedule(state: Weights) -> NoiseSchedule:
    """Return the library's schedule that has these betas with its defaults, or one of the betas."""
    betas = state.get("betas")
    if betas is None or betas.ndim != 1 or not len(betas):
        raise ArtefactError(
            "the file has no betas, so its process is not GaussianDiffusion",
            "import a model of GaussianDiffusion or LearnedGaussianDiffusion",
        )
    steps, values = len(betas), betas.double().numpy()
    scale = 1000 / steps
    for make, arguments in (
        (linear, {"beta_start": scale * 1e-4, "beta_end": scale * 0.02}),
        (cosine, {}),
        (sigmoid, {}),
    ):
        try:
            schedule = make(steps=steps, **arguments)
        except UsageError:  # with very few steps the linear betas reach 1
            continue
        if np.allclose(_betas(schedule), values, rtol=1e-4, atol=1e-8):
            return schedule
    try:
        return from_betas(values)
    except UsageError as error:
        raise ArtefactError(
            f"the file's betas: {error.message}", "check that the file is whole"
        ) from error


def _betas(schedule: NoiseSchedule) -> NDArray[np.float64]:
    return np.asarray(1 - schedule.alpha_bar / np.append(1, schedule.alpha_bar[:-1]))


def _parameterization(state: Weights, schedule: NoiseSchedule) -> str:
    """Return the network's parameterization, found from the weights of its loss.

    The weights are min(snr, gamma) / snr for noise, min(snr, gamma) for x0, and
    min(snr, gamma) / (snr + 1) for v (Hang et al. 2023); gamma may be infinite.
    """
    snr = np.exp(2 * schedule.half_log_snr)
    weight = state.get("loss_weight")
    if weight is not None and weight.shape == snr.shape:
        over = {"epsilon": snr, "x0": np.ones_like(snr), "v": snr + 1}
        for parameterization, divisor in over.items():
            clipped = weight.double().numpy() * divisor
            if np.allclose(clipped, np.minimum(snr, clipped.max()), rtol=1e-3):
                return parameterization
    raise ArtefactError(
        "loss_weight fits none of the objectives pred_noise, pred_x0 and pred_v",
        "import a model that was trained with the library's own GaussianDiffusion",
    )


def _sampler(chosen: Chosen, steps: int, learned: bool) -> SamplerCall:
    """Return DDIM if there are fewer sampling steps than levels, or else DDPM on all levels."""
    sampling = chosen[SAMPLING_STEPS]
    if sampling > steps:
        raise UsageError(
            f"{SAMPLING_STEPS.name} is {sampling}, and the model has {steps} steps", "give fewer"
        )
    if sampling == steps:
        return SamplerCall("ddpm", {"variance": "learned" if learned else "small"})
    return SamplerCall("ddim", {"steps": sampling, "eta": chosen[ETA], "spacing": "trailing"})


FORMAT: Final = Format(
    title="lucidrains/denoising-diffusion-pytorch",
    sign="a dictionary of model and ema, with tensors named model.init_conv and model.downs",
    recognizes=_recognizes,
    read=_read,
)
