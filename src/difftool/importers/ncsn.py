"""Read ermongroup/ncsn: Song and Ermon's score networks of 2019, whose norms know the level."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Final

from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.diffusion.schedules import geometric
from difftool.diffusion.spec import ModelSpec
from difftool.importers.format import Format, Imported
from difftool.importers.settings import Chosen, Setting, Settings, fixed
from difftool.importers.source import Source
from difftool.importers.tensors import as_weights, find_size, replace_words, take

IMAGE_SIZE: Final = Setting(
    "data.image_size", int, usual="28 for MNIST, 32 for CIFAR-10", also=("image_size",)
)
LOGIT: Final = fixed("data.logit_transform", False)
SIGMA_BEGIN: Final = Setting("model.sigma_begin", float, usual="1", also=("sigma_begin",))
SIGMA_END: Final = Setting("model.sigma_end", float, usual="0.01", also=("sigma_end",))
# In the published code these two are literals in a test function.
STEP_SIZE: Final = Setting("sampling.step_lr", float, default=2e-5)
STEPS_EACH: Final = Setting("sampling.n_steps_each", int, default=100)

_STAGES: Final = ("1", "2", "3", "4")


def _recognizes(source: Source) -> bool:
    return as_weights(source.first).keys() >= {"begin_conv.weight", "normalizer.embed.weight"}


def _read(source: Source, settings: Settings) -> Imported:
    chosen = settings.choose(IMAGE_SIZE, SIGMA_BEGIN, SIGMA_END, LOGIT, STEP_SIZE, STEPS_EACH)
    state = as_weights(source.first)
    channels = find_size(state, "begin_conv.weight")
    in_channels = find_size(state, "end_conv.bias", "end_conv.weight")
    levels = find_size(state, "normalizer.embed.weight")
    arguments = {"in_channels": in_channels, "levels": levels, "channels": channels}
    network = NetworkCall("ncsn", arguments)
    size = chosen[IMAGE_SIZE]
    return Imported(
        spec=ModelSpec(
            shape=(in_channels, size, size),
            schedule=geometric(
                levels=levels, sigma_min=chosen[SIGMA_END], sigma_max=chosen[SIGMA_BEGIN]
            ),
            parameterization="score",
            cond="level",
            data_range=(0.0, 1.0),
        ),
        network=network,
        tensors=take(state, network, partial(refinenet_name, stages=_STAGES, refines=_STAGES)),
        sampler=annealed_langevin(chosen, levels, denoise=False),
        weights="raw",
        chosen=chosen,
        files=source.files,
    )


def annealed_langevin(chosen: Chosen, levels: int, *, denoise: bool) -> SamplerCall:
    """Return the published sampler with these settings."""
    arguments = {
        "steps": chosen[STEPS_EACH] * levels,
        "step_size": chosen[STEP_SIZE],
        "convention": "image",
        "denoise": denoise,
    }
    return SamplerCall("annealed_langevin", arguments)


def refinenet_name(name: str, stages: Sequence[str], refines: Sequence[str]) -> str:
    """Return the name that ncsn and ncsnv2 give to a tensor of our RefineNet.

    `stages` and `refines` are their numbers of the stages and refine blocks, in running order.
    """
    blocks = {"adapt": "adapt_convs.0", "adapt_below": "adapt_convs.1", "output": "output_convs"}
    words = {
        "net.": "",
        "conv_in": "begin_conv",
        "conv_out": "end_conv",
        "norm_out": "normalizer",
        ".norm1": ".normalize1",
        ".norm2": ".normalize2",
        "fusion": "msf",
        "pooling": "crp",
    }
    stage = re.match(r"net\.stages\.(\d+)\.0\.(conv2|shortcut)\.", name)
    if stage and 0 < int(stage[1]) < len(stages) - 2:  # only stages that halve the resolution
        name = re.sub(r"(weight|bias)$", r"conv.\1", name)
    name = re.sub(r"stages\.(\d+)", lambda m: f"res{stages[int(m[1])]}", name)
    name = re.sub(r"refine\.(\d+)", lambda m: f"refine{refines[int(m[1])]}", name)
    name = re.sub(
        r"(adapt|adapt_below|output)\.(conv|norm)s\.(\d)",
        lambda m: f"{blocks[m[1]]}.{int(m[3]) // 2 + 1}_{int(m[3]) % 2 + 1}_{m[2]}",
        name,
    )
    return replace_words(name, words)


FORMAT: Final = Format(
    title="ermongroup/ncsn",
    sign="a list whose first item has begin_conv and normalizer.embed",
    recognizes=_recognizes,
    read=_read,
)
