"""score_sde_pytorch's NCSN++ as a plain walk over its list of modules.

Written from the published structure alone; nothing here knows our network or our key tables. A
tensor that the walk meets for the first time is made then, at random. The walk meets them in the
order in which the published modules are registered, so the state is in the order of the file.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

SQRT2 = math.sqrt(2)


@dataclass
class Plain:
    """A network by the names that its authors' configurations use, with random weights."""

    image_size: int = 8
    num_channels: int = 3
    centered: bool = False
    nf: int = 16
    ch_mult: tuple[int, ...] = (1, 2)
    num_res_blocks: int = 1
    attn_resolutions: tuple[int, ...] = (4,)
    resblock_type: str = "biggan"
    fir: bool = True
    skip_rescale: bool = True
    progressive: str = "none"
    progressive_input: str = "residual"
    progressive_combine: str = "sum"
    embedding_type: str = "fourier"
    scale_by_sigma: bool = True
    sigmas: Tensor | None = None
    state: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self(torch.zeros(1, self.num_channels, self.image_size, self.image_size), torch.ones(1))

    def file(self) -> dict[str, Any]:
        """Return what the authors' code saves: averages without names, and other weights."""
        frozen = "all_modules.0.W"
        shadow = [value for name, value in self.state.items() if name != frozen]
        trained = {k: v if k == frozen else v + 0.1 for k, v in self.state.items()}
        sigmas = {} if self.sigmas is None else {"sigmas": self.sigmas}
        return {
            "optimizer": {"state": {}, "param_groups": []},
            "model": {f"module.{k}": v for k, v in (sigmas | trained).items()},
            "ema": {"decay": 0.999, "num_updates": 70, "shadow_params": shadow},
            "step": 70,
        }

    def tensor(self, name: str, *shape: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
        if name not in self.state:
            self.state[name] = shift + scale * torch.randn(shape, generator=self.generator)
        return self.state[name]

    def conv(
        self, name: str, h: Tensor, outputs: int, size: int = 3, stride: int = 1, padding: int = 1
    ) -> Tensor:
        inputs = h.shape[1]
        scale = 1 / math.sqrt(inputs * size**2)
        weight = self.tensor(f"{name}.weight", outputs, inputs, size, size, scale=scale)
        bias = self.tensor(f"{name}.bias", outputs, scale=0.1)
        return F.conv2d(h, weight, bias, stride, padding)

    def linear(self, name: str, h: Tensor, outputs: int) -> Tensor:
        weight = self.tensor(f"{name}.weight", outputs, h.shape[1], scale=h.shape[1] ** -0.5)
        return h @ weight.T + self.tensor(f"{name}.bias", outputs, scale=0.1)

    def nin(self, name: str, h: Tensor, outputs: int) -> Tensor:
        weight = self.tensor(f"{name}.W", h.shape[1], outputs, scale=h.shape[1] ** -0.5)
        bias = self.tensor(f"{name}.b", outputs, scale=0.1)
        return torch.einsum("nchw,cd->ndhw", h, weight) + bias[:, None, None]

    def norm(self, name: str, h: Tensor) -> Tensor:
        width = h.shape[1]
        weight = self.tensor(f"{name}.weight", width, scale=0.1, shift=1)
        bias = self.tensor(f"{name}.bias", width, scale=0.1)
        return F.group_norm(h, min(width // 4, 32), weight, bias, 1e-6)

    def down(self, h: Tensor) -> Tensor:
        return filtered(F.pad(h, (1, 1, 1, 1)))[..., ::2, ::2] if self.fir else F.avg_pool2d(h, 2)

    def up(self, h: Tensor) -> Tensor:
        if not self.fir:
            return h.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return 4 * filtered(F.pad(spread(h), (2, 1, 2, 1)))

    def down_conv(self, name: str, h: Tensor, outputs: int) -> Tensor:
        if self.fir:
            h = filtered(F.pad(h, (2, 2, 2, 2)))
            return self.conv(f"{name}.Conv2d_0", h, outputs, stride=2, padding=0)
        return self.conv(f"{name}.Conv_0", F.pad(h, (0, 1, 0, 1)), outputs, stride=2, padding=0)

    def up_conv(self, name: str, h: Tensor, outputs: int) -> Tensor:
        """Do what the published one means, which flips a tensor in a way that PyTorch refuses."""
        if not self.fir:
            return self.conv(f"{name}.Conv_0", self.up(h), outputs)
        scale = 1 / math.sqrt(9 * h.shape[1])
        weight = self.tensor(f"{name}.Conv2d_0.weight", outputs, h.shape[1], 3, 3, scale=scale)
        bias = self.tensor(f"{name}.Conv2d_0.bias", outputs, scale=0.1)
        h = F.conv_transpose2d(h, weight.flip(2, 3).transpose(0, 1), stride=2)
        return 4 * filtered(F.pad(h, (1, 1, 1, 1))) + bias[:, None, None]

    def sum(self, a: Tensor, b: Tensor) -> Tensor:
        return (a + b) / SQRT2 if self.skip_rescale else a + b

    def residual(self, name: str, x: Tensor, outputs: int, temb: Tensor, way: str = "") -> Tensor:
        def resized(h: Tensor) -> Tensor:
            return {"": lambda h: h, "down": self.down, "up": self.up}[way](h)

        inputs = x.shape[1]
        h = self.conv(
            f"{name}.Conv_0", resized(F.silu(self.norm(f"{name}.GroupNorm_0", x))), outputs
        )
        h = h + self.linear(f"{name}.Dense_0", F.silu(temb), outputs)[:, :, None, None]
        h = F.silu(self.norm(f"{name}.GroupNorm_1", h))
        h = self.conv(f"{name}.Conv_1", h, outputs)
        x = resized(x)
        if self.resblock_type == "biggan" and (inputs != outputs or way):
            x = self.conv(f"{name}.Conv_2", x, outputs, size=1, padding=0)
        elif inputs != outputs:
            x = self.nin(f"{name}.NIN_0", x, outputs)
        return self.sum(x, h)

    def attention(self, name: str, x: Tensor) -> Tensor:
        width = x.shape[1]
        h = self.norm(f"{name}.GroupNorm_0", x)
        q, k, v = (self.nin(f"{name}.NIN_{i}", h, width).flatten(2) for i in range(3))
        weights = (torch.einsum("nct,ncs->nts", q, k) / math.sqrt(width)).softmax(-1)
        h = torch.einsum("nts,ncs->nct", weights, v).reshape(x.shape)
        return self.sum(x, self.nin(f"{name}.NIN_3", h, width))

    def head(self, norm: str, conv: str, h: Tensor, outputs: int) -> Tensor:
        return self.conv(conv, F.silu(self.norm(norm, h)), outputs)

    def change(self, name: str, h: Tensor, temb: Tensor, way: str) -> Tensor:
        if self.resblock_type == "biggan":
            return self.residual(name, h, h.shape[1], temb, way)
        convolve = self.down_conv if way == "down" else self.up_conv
        return convolve(name, h, h.shape[1])

    def __call__(self, x: Tensor, time_cond: Tensor) -> Tensor:
        places = iter(range(1000))

        def place() -> str:
            return f"all_modules.{next(places)}"

        if self.embedding_type == "fourier":
            frequencies = self.tensor(f"{place()}.W", self.nf, scale=16)
            angles = time_cond.log()[:, None] * frequencies * 2 * math.pi
        else:
            half = self.nf // 2
            steps = torch.arange(half) * (-math.log(10000) / (half - 1))
            angles = time_cond[:, None] * steps.exp()
        temb = self.linear(place(), torch.cat([angles.sin(), angles.cos()], 1), 4 * self.nf)
        temb = self.linear(place(), F.silu(temb), 4 * self.nf)
        x = x if self.centered else 2 * x - 1
        pyramid, hs = x, [self.conv(place(), x, self.nf)]
        for level, mult in enumerate(self.ch_mult):
            for _ in range(self.num_res_blocks):
                h = self.residual(place(), hs[-1], self.nf * mult, temb)
                hs.append(self.attention(place(), h) if self.attends(h) else h)
            if level < len(self.ch_mult) - 1:
                h = self.change(place(), hs[-1], temb, "down")
                if self.progressive_input == "input_skip":
                    pyramid = self.down(pyramid)
                    part = self.conv(f"{place()}.Conv", pyramid, h.shape[1], size=1, padding=0)
                    cat = self.progressive_combine == "cat"
                    h = torch.cat([part, h], 1) if cat else part + h
                elif self.progressive_input == "residual":
                    h = pyramid = self.sum(self.down_conv(place(), pyramid, h.shape[1]), h)
                hs.append(h)
        h = self.residual(place(), hs[-1], hs[-1].shape[1], temb)
        h = self.attention(place(), h)
        h = self.residual(place(), h, h.shape[1], temb)
        output = None
        for level, mult in reversed(list(enumerate(self.ch_mult))):
            width = self.nf * mult
            for _ in range(self.num_res_blocks + 1):
                h = self.residual(place(), torch.cat([h, hs.pop()], 1), width, temb)
            if self.attends(h):
                h = self.attention(place(), h)
            if self.progressive == "output_skip":
                part = self.head(place(), place(), h, self.num_channels)
                output = part if output is None else self.up(output) + part
            elif self.progressive == "residual" and output is None:
                output = self.head(place(), place(), h, width)
            elif self.progressive == "residual":
                h = output = self.sum(self.up_conv(place(), output, width), h)
            if level > 0:
                h = self.change(place(), h, temb, "up")
        if self.progressive != "output_skip":
            output = self.head(place(), place(), h, self.num_channels)
        if self.scale_by_sigma:
            used = time_cond if self.sigmas is None else self.sigmas[time_cond.long()].float()
            return output / used[:, None, None, None]
        return output

    def attends(self, h: Tensor) -> bool:
        return h.shape[-1] in self.attn_resolutions


def filtered(h: Tensor) -> Tensor:
    """Weight every 4x4 window by (1, 3, 3, 1) in both directions, of sum 1; no padding."""
    line = torch.tensor([1.0, 3, 3, 1]) / 8
    count, width, *size = h.shape
    single = h.reshape(count * width, 1, *size)
    return F.conv2d(single, torch.outer(line, line)[None, None]).unflatten(0, (count, width))[
        :, :, 0
    ]


def spread(h: Tensor) -> Tensor:
    """Put a zero behind every pixel, in both directions."""
    wide = torch.zeros(*h.shape[:2], 2 * h.shape[2], 2 * h.shape[3])
    wide[..., ::2, ::2] = h
    return wide
