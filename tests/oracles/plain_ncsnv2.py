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
        """Return random weights under their names, for images of 3 channels."""
        state: State = {}
        x = torch.zeros(1, 3, 16, 16)
        self.evaluate(state, x, ngf=ngf, made_by=torch.Generator().manual_seed(seed))
        return state

    def evaluate(
        self, state: State, x: Tensor, *, ngf: int = 0, made_by: torch.Generator | None = None
    ) -> Tensor:
        """Return the output before its division by sigma, of x in [0, 1].

        With `made_by` the state is filled on the way, for a network of this `ngf`.
        """

        def tensor(name: str, *shape: int, scale: float, shift: float = 0.0) -> Tensor:
            if made_by:
                state[name] = shift + scale * torch.randn(shape, generator=made_by)
            return state[name]

        def conv(
            name: str, h: Tensor, outputs: int, size: int = 3, dilation: int = 1, bias: bool = True
        ) -> Tensor:
            scale = 1 / math.sqrt(h.shape[1] * size * size)
            weight = tensor(f"{name}.weight", outputs, h.shape[1], size, size, scale=scale)
            shift = tensor(f"{name}.bias", outputs, scale=0.1) if bias else None
            padding = dilation * (size // 2)
            return F.conv2d(h, weight, shift, padding=padding, dilation=dilation)

        def norm(name: str, h: Tensor) -> Tensor:
            means = h.mean((2, 3))
            relative = means - means.mean(1, keepdim=True)
            relative = relative / torch.sqrt(means.var(1, keepdim=True) + 1e-5)
            spread = h.var((2, 3), keepdim=True, correction=0)
            plain = (h - means[:, :, None, None]) / torch.sqrt(spread + 1e-5)
            alpha, gamma, beta = (
                tensor(f"{name}.{part}", h.shape[1], scale=0.1, shift=shift)[:, None, None]
                for part, shift in (("alpha", 1), ("gamma", 1), ("beta", 0))
            )
            return gamma * (plain + alpha * relative[:, :, None, None]) + beta

        def residual(name: str, h: Tensor, width: int, dilation: int, *, pooled: bool) -> Tensor:
            inner = F.elu(norm(f"{name}.normalize1", h))
            inner = conv(f"{name}.conv1", inner, h.shape[1], dilation=dilation)
            inner = F.elu(norm(f"{name}.normalize2", inner))
            if pooled:
                inner = F.avg_pool2d(conv(f"{name}.conv2.conv", inner, width), 2)
                return inner + F.avg_pool2d(conv(f"{name}.shortcut.conv", h, width, 1), 2)
            inner = conv(f"{name}.conv2", inner, width, dilation=dilation)
            if name.endswith(".0") and name != f"res{first}.0":
                h = conv(f"{name}.shortcut", h, width, dilation=dilation)
            return h + inner

        def units(name: str, h: Tensor, count: int) -> Tensor:
            for unit in range(1, count + 1):
                inner = h
                for step in (1, 2):
                    target = f"{name}.{unit}_{step}_conv"
                    inner = conv(target, F.elu(inner), h.shape[1], bias=False)
                h = h + inner
            return h

        first, *_ = self.stages
        h = conv("begin_conv", 2 * x - 1, ngf)
        features: list[Tensor] = []
        dilations = [1] * (len(self.stages) - 2) + [2, 4]
        for (name, multiple), dilation in zip(self.stages.items(), dilations, strict=True):
            pooled = name != first and dilation == 1
            h = residual(f"res{name}.0", h, multiple * ngf, dilation, pooled=pooled)
            h = residual(f"res{name}.1", h, multiple * ngf, dilation, pooled=False)
            features.append(h)
        below = None
        for name in self.refines:
            prefix, feature = f"refine{name}", features.pop()
            outputs = features[-1].shape[1] if features else feature.shape[1]
            h = units(f"{prefix}.adapt_convs.0", feature, 2)
            if below is not None:
                below = units(f"{prefix}.adapt_convs.1", below, 2)
                below = conv(f"{prefix}.msf.convs.1", below, outputs)
                size = feature.shape[2:]
                below = F.interpolate(below, size, mode="bilinear", align_corners=True)
                h = conv(f"{prefix}.msf.convs.0", h, outputs) + below
            h = path = F.elu(h)
            for index in range(2):
                pooled_path = F.max_pool2d(path, 5, stride=1, padding=2)
                path = conv(f"{prefix}.crp.convs.{index}", pooled_path, outputs, bias=False)
                h = h + path
            below = units(f"{prefix}.output_convs", h, 1 if features else 3)
        return conv("end_conv", F.elu(norm("normalizer", below)), 3)


NCSNV2 = Variant({"1": 1, "2": 2, "3": 2, "4": 2}, ("1", "2", "3", "4"))
DEEPER = Variant({"1": 1, "2": 2, "3": 2, "4": 4, "5": 4}, ("1", "2", "3", "4", "5"))
DEEPEST = Variant(
    {"1": 1, "2": 2, "3": 2, "31": 2, "4": 4, "5": 4}, ("1", "2", "31", "3", "4", "5")
)
