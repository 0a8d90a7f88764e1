"""NCSNv2's networks as a plain walk over a state dict, and state dicts to walk over.

Written from their published structure alone; nothing here knows our network or our key tables.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]


@dataclass(frozen=True)
class Variant:
    """Stages by name in running order, with their widths as multiples of ngf.

    `refines` names the refine blocks in running order, from the last stage to the first.
    """

    stages: Mapping[str, int]
    refines: tuple[str, ...]

    def random_state(self, ngf: int = 4, seed: int = 0) -> State:
        """Random weights under their names, for images of 3 channels."""
        generator = torch.Generator().manual_seed(seed)
        state: State = {}

        def conv(name: str, inputs: int, outputs: int, size: int = 3, bias: bool = True) -> None:
            scale = 1 / math.sqrt(inputs * size * size)
            shape = (outputs, inputs, size, size)
            state[f"{name}.weight"] = scale * torch.randn(shape, generator=generator)
            if bias:
                state[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=generator)

        def norm(name: str, width: int) -> None:
            for part, around in (("alpha", 1), ("gamma", 1), ("beta", 0)):
                state[f"{name}.{part}"] = around + 0.1 * torch.randn(width, generator=generator)

        conv("begin_conv", 3, ngf)
        norm("normalizer", ngf)
        conv("end_conv", ngf, 3)
        names = list(self.stages)
        widths = [ngf * multiple for multiple in self.stages.values()]
        before = ngf
        for place, (name, width) in enumerate(zip(names, widths, strict=True)):
            for block, inputs in enumerate((before, width)):
                prefix = f"res{name}.{block}"
                pooled = block == 0 and 0 < place < len(names) - 2
                norm(f"{prefix}.normalize1", inputs)
                conv(f"{prefix}.conv1", inputs, inputs)
                norm(f"{prefix}.normalize2", inputs)
                conv(f"{prefix}.conv2{'.conv' if pooled else ''}", inputs, width)
                if pooled:
                    conv(f"{prefix}.shortcut.conv", inputs, width, 1)
                elif block == 0 and place > 0:
                    conv(f"{prefix}.shortcut", inputs, width)
            before = width
        for place, name in enumerate(self.refines):
            level = len(names) - 1 - place
            width, outputs = widths[level], widths[max(level - 1, 0)]
            prefix = f"refine{name}"
            for source in range(1 + (place > 0)):
                for unit in (1, 2):
                    for step in (1, 2):
                        target = f"{prefix}.adapt_convs.{source}.{unit}_{step}_conv"
                        conv(target, width, width, bias=False)
                if place > 0:
                    conv(f"{prefix}.msf.convs.{source}", width, outputs)
            for index in range(2):
                conv(f"{prefix}.crp.convs.{index}", outputs, outputs, bias=False)
            for unit in range(1, 4 if level == 0 else 2):
                for step in (1, 2):
                    conv(f"{prefix}.output_convs.{unit}_{step}_conv", outputs, outputs, bias=False)
        return state


NCSNV2 = Variant({"1": 1, "2": 2, "3": 2, "4": 2}, ("1", "2", "3", "4"))
DEEPER = Variant({"1": 1, "2": 2, "3": 2, "4": 4, "5": 4}, ("1", "2", "3", "4", "5"))
DEEPEST = Variant(
    {"1": 1, "2": 2, "3": 2, "31": 2, "4": 4, "5": 4}, ("1", "2", "31", "3", "4", "5")
)


def evaluate(state: State, x: Tensor, variant: Variant) -> Tensor:
    """The output before its division by sigma, of x in [0, 1]."""

    def conv(name: str, h: Tensor, dilation: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        padding = dilation * (weight.shape[-1] // 2)
        bias = state.get(f"{name}.bias")
        return F.conv2d(h, weight, bias, padding=padding, dilation=dilation)

    def norm(name: str, h: Tensor) -> Tensor:
        means = h.mean((2, 3))
        relative = means - means.mean(1, keepdim=True)
        relative = relative / torch.sqrt(means.var(1, keepdim=True) + 1e-5)
        spread = h.var((2, 3), keepdim=True, correction=0)
        plain = (h - means[:, :, None, None]) / torch.sqrt(spread + 1e-5)
        alpha, gamma, beta = (
            state[f"{name}.{part}"][:, None, None] for part in ("alpha", "gamma", "beta")
        )
        return gamma * (plain + alpha * relative[:, :, None, None]) + beta

    def residual(name: str, h: Tensor, dilation: int) -> Tensor:
        inner = conv(f"{name}.conv1", F.elu(norm(f"{name}.normalize1", h)), dilation)
        inner = F.elu(norm(f"{name}.normalize2", inner))
        if f"{name}.conv2.conv.weight" in state:
            inner = F.avg_pool2d(conv(f"{name}.conv2.conv", inner), 2)
            return inner + F.avg_pool2d(conv(f"{name}.shortcut.conv", h), 2)
        inner = conv(f"{name}.conv2", inner, dilation)
        if f"{name}.shortcut.weight" in state:
            h = conv(f"{name}.shortcut", h, dilation)
        return h + inner

    def units(name: str, h: Tensor) -> Tensor:
        unit = 1
        while f"{name}.{unit}_1_conv.weight" in state:
            inner = h
            for step in (1, 2):
                inner = conv(f"{name}.{unit}_{step}_conv", F.elu(inner))
            h, unit = h + inner, unit + 1
        return h

    h = conv("begin_conv", 2 * x - 1)
    features = []
    dilations = [1] * (len(variant.stages) - 2) + [2, 4]
    for name, dilation in zip(variant.stages, dilations, strict=True):
        for block in range(2):
            h = residual(f"res{name}.{block}", h, dilation)
        features.append(h)
    below = None
    for name in variant.refines:
        prefix, feature = f"refine{name}", features.pop()
        h = units(f"{prefix}.adapt_convs.0", feature)
        if below is not None:
            below = conv(f"{prefix}.msf.convs.1", units(f"{prefix}.adapt_convs.1", below))
            size = feature.shape[2:]
            below = F.interpolate(below, size, mode="bilinear", align_corners=True)
            h = conv(f"{prefix}.msf.convs.0", h) + below
        h = path = F.elu(h)
        for index in range(2):
            pooled = F.max_pool2d(path, 5, stride=1, padding=2)
            path = conv(f"{prefix}.crp.convs.{index}", pooled)
            h = h + path
        below = units(f"{prefix}.output_convs", h)
    return conv("end_conv", F.elu(norm("normalizer", below)))
