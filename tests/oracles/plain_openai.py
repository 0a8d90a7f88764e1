"""guided-diffusion's U-Net as a plain walk over a state dict, and state dicts to walk over.

Written from its published structure alone; nothing here knows our network or our key tables.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
GROUPS = 32


@dataclass(frozen=True)
class Shape:
    """What the flags of the training script fix."""

    channels: int = 32
    widths: Sequence[int] = (32, 64)
    blocks: int = 1
    attention: Sequence[int] = (1,)
    outputs: int = 6
    updown: bool = True
    scale_shift: bool = True
    classes: int = 0

    def random_state(self, seed: int = 0) -> State:
        """Random weights under their names."""
        generator = torch.Generator().manual_seed(seed)
        state: State = {}
        hidden = 4 * self.channels

        def linear(name: str, inputs: int, outputs: int, *kernel: int) -> None:
            scale = 1 / math.sqrt(inputs * math.prod(kernel))
            shape = (outputs, inputs, *kernel)
            state[f"{name}.weight"] = scale * torch.randn(shape, generator=generator)
            state[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=generator)

        def norm(name: str, width: int) -> None:
            state[f"{name}.weight"] = 1 + 0.1 * torch.randn(width, generator=generator)
            state[f"{name}.bias"] = 0.1 * torch.randn(width, generator=generator)

        def residual(name: str, inputs: int, outputs: int) -> None:
            norm(f"{name}.in_layers.0", inputs)
            linear(f"{name}.in_layers.2", inputs, outputs, 3, 3)
            linear(f"{name}.emb_layers.1", hidden, outputs * (1 + self.scale_shift))
            norm(f"{name}.out_layers.0", outputs)
            linear(f"{name}.out_layers.3", outputs, outputs, 3, 3)
            if inputs != outputs:
                linear(f"{name}.skip_connection", inputs, outputs, 1, 1)

        def attention(name: str, width: int) -> None:
            norm(f"{name}.norm", width)
            linear(f"{name}.qkv", width, 3 * width, 1)
            linear(f"{name}.proj_out", width, width, 1)

        linear("time_embed.0", self.channels, hidden)
        linear("time_embed.2", hidden, hidden)
        if self.classes:
            state["label_emb.weight"] = torch.randn(self.classes, hidden, generator=generator)
        width = self.widths[0]
        linear("input_blocks.0.0", 3, width, 3, 3)
        skips, row = [width], 1
        for level, wide in enumerate(self.widths):
            for _ in range(self.blocks):
                residual(f"input_blocks.{row}.0", width, wide)
                width = wide
                if level in self.attention:
                    attention(f"input_blocks.{row}.1", width)
                skips.append(width)
                row += 1
            if level < len(self.widths) - 1:
                if self.updown:
                    residual(f"input_blocks.{row}.0", width, width)
                else:
                    linear(f"input_blocks.{row}.0.op", width, width, 3, 3)
                skips.append(width)
                row += 1
        residual("middle_block.0", width, width)
        attention("middle_block.1", width)
        residual("middle_block.2", width, width)
        row = 0
        for level in reversed(range(len(self.widths))):
            for index in range(self.blocks + 1):
                residual(f"output_blocks.{row}.0", width + skips.pop(), self.widths[level])
                width, column = self.widths[level], 1
                if level in self.attention:
                    attention(f"output_blocks.{row}.1", width)
                    column = 2
                if level > 0 and index == self.blocks:
                    if self.updown:
                        residual(f"output_blocks.{row}.{column}", width, width)
                    else:
                        linear(f"output_blocks.{row}.{column}.conv", width, width, 3, 3)
                row += 1
        norm("out.0", width)
        linear("out.2", width, self.outputs, 3, 3)
        return state


def evaluate(
    state: State,
    x: Tensor,
    timesteps: Tensor,
    labels: Tensor | None = None,
    *,
    blocks: int,
    head_channels: int,
    new_order: bool,
) -> Tensor:
    """The network's output; rows of input_blocks whose number `blocks` + 1 divides go down."""

    def layer(name: str, h: Tensor, stride: int = 1) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        if weight.ndim == 2:
            return h @ weight.T + bias
        if weight.ndim == 3:
            return F.conv1d(h, weight, bias)
        return F.conv2d(h, weight, bias, stride=stride, padding=weight.shape[-1] // 2)

    def norm(name: str, h: Tensor) -> Tensor:
        return F.group_norm(h, GROUPS, state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    def residual(name: str, h: Tensor, resample: str = "") -> Tensor:
        def scaled(value: Tensor) -> Tensor:
            if resample == "down":
                return F.avg_pool2d(value, 2)
            return F.interpolate(value, scale_factor=2.0) if resample == "up" else value

        inner = layer(f"{name}.in_layers.2", scaled(F.silu(norm(f"{name}.in_layers.0", h))))
        embedded = layer(f"{name}.emb_layers.1", F.silu(embedding))[:, :, None, None]
        width = inner.shape[1]
        if embedded.shape[1] == 2 * width:
            normed = norm(f"{name}.out_layers.0", inner)
            inner = normed * (1 + embedded[:, :width]) + embedded[:, width:]
        else:
            inner = norm(f"{name}.out_layers.0", inner + embedded)
        inner = layer(f"{name}.out_layers.3", F.silu(inner))
        outer = scaled(h)
        if f"{name}.skip_connection.weight" in state:
            outer = layer(f"{name}.skip_connection", outer)
        return outer + inner

    def attention(name: str, h: Tensor) -> Tensor:
        count, width = h.shape[:2]
        qkv = layer(f"{name}.qkv", norm(f"{name}.norm", h).reshape(count, width, -1))
        out = torch.empty(count, width, qkv.shape[-1])
        for head in range(width // head_channels):
            if new_order:  # all queries, all keys, all values
                starts = [part * width + head * head_channels for part in range(3)]
            else:  # each head's query, key and value
                starts = [(3 * head + part) * head_channels for part in range(3)]
            q, k, v = (qkv[:, start : start + head_channels] for start in starts)
            weights = (torch.einsum("nct,ncs->nts", q, k) / math.sqrt(head_channels)).softmax(-1)
            first = head * head_channels
            out[:, first : first + head_channels] = torch.einsum("nts,ncs->nct", weights, v)
        return h + layer(f"{name}.proj_out", out).reshape(h.shape)

    def module(name: str, h: Tensor, resample: str) -> Tensor:
        if f"{name}.op.weight" in state:
            return layer(f"{name}.op", h, stride=2)
        if f"{name}.conv.weight" in state:
            return layer(f"{name}.conv", F.interpolate(h, scale_factor=2.0))
        if f"{name}.qkv.weight" in state:
            return attention(name, h)
        if f"{name}.in_layers.2.weight" in state:
            return residual(name, h, resample)
        return h

    half = state["time_embed.0.weight"].shape[1] // 2
    angles = timesteps[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)
    waves = torch.cat([angles.cos(), angles.sin()], dim=1)
    embedding = layer("time_embed.2", F.silu(layer("time_embed.0", waves)))
    if labels is not None:
        embedding = embedding + state["label_emb.weight"][labels]
    h = layer("input_blocks.0.0", x)
    skips = [h]
    rows = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("output_blocks"))
    for row in range(1, rows):
        down = "down" if row % (blocks + 1) == 0 else ""
        h = module(f"input_blocks.{row}.1", module(f"input_blocks.{row}.0", h, down), "")
        skips.append(h)
    for column in range(3):
        h = module(f"middle_block.{column}", h, "")
    for row in range(rows):
        h = module(f"output_blocks.{row}.0", torch.cat([h, skips.pop()], dim=1), "")
        for column in (1, 2):
            h = module(f"output_blocks.{row}.{column}", h, "up")
    return layer("out.2", F.silu(norm("out.0", h)))
