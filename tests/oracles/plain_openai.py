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
    """A network as the flags of the training script fix it."""

    channels: int = 32
    widths: Sequence[int] = (32, 64)
    blocks: int = 1
    attention: Sequence[int] = (1,)
    outputs: int = 6
    updown: bool = True
    scale_shift: bool = True
    classes: int = 0

    def random_state(self, seed: int = 0) -> State:
        """Return random weights under their names."""
        state: State = {}
        size = 2 ** len(self.widths)
        self.evaluate(
            state,
            torch.zeros(1, 3, size, size),
            torch.zeros(1),
            torch.zeros(1, dtype=torch.int64),
            head_channels=GROUPS,
            made_by=torch.Generator().manual_seed(seed),
        )
        return state

    def evaluate(
        self,
        state: State,
        x: Tensor,
        timesteps: Tensor,
        labels: Tensor | None = None,
        *,
        head_channels: int,
        new_order: bool = False,
        made_by: torch.Generator | None = None,
    ) -> Tensor:
        """Return the network's output; with `made_by` the state is filled on the way."""

        def tensor(name: str, *shape: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
            if made_by:
                state[name] = shift + scale * torch.randn(shape, generator=made_by)
            return state[name]

        def layer(name: str, h: Tensor, outputs: int, *kernel: int, stride: int = 1) -> Tensor:
            shape = (outputs, h.shape[1], *kernel)
            weight = tensor(f"{name}.weight", *shape, scale=1 / math.sqrt(math.prod(shape[1:])))
            bias = tensor(f"{name}.bias", outputs, scale=0.1)
            if not kernel:
                return h @ weight.T + bias
            if len(kernel) == 1:
                return F.conv1d(h, weight, bias)
            return F.conv2d(h, weight, bias, stride=stride, padding=kernel[0] // 2)

        def norm(name: str, h: Tensor) -> Tensor:
            weight = tensor(f"{name}.weight", h.shape[1], scale=0.1, shift=1)
            return F.group_norm(h, GROUPS, weight, tensor(f"{name}.bias", h.shape[1], scale=0.1))

        def residual(name: str, h: Tensor, outputs: int, resample: str = "") -> Tensor:
            def scaled(value: Tensor) -> Tensor:
                if resample == "down":
                    return F.avg_pool2d(value, 2)
                return F.interpolate(value, scale_factor=2.0) if resample == "up" else value

            inner = scaled(F.silu(norm(f"{name}.in_layers.0", h)))
            inner = layer(f"{name}.in_layers.2", inner, outputs, 3, 3)
            both = outputs * (1 + self.scale_shift)
            embedded = layer(f"{name}.emb_layers.1", F.silu(embedding), both)[:, :, None, None]
            if self.scale_shift:
                inner = norm(f"{name}.out_layers.0", inner)
                inner = inner * (1 + embedded[:, :outputs]) + embedded[:, outputs:]
            else:
                inner = norm(f"{name}.out_layers.0", inner + embedded)
            inner = layer(f"{name}.out_layers.3", F.silu(inner), outputs, 3, 3)
            outer = scaled(h)
            if h.shape[1] != outputs:
                outer = layer(f"{name}.skip_connection", outer, outputs, 1, 1)
            return outer + inner

        def attention(name: str, h: Tensor) -> Tensor:
            count, width = h.shape[:2]
            flat = norm(f"{name}.norm", h).reshape(count, width, -1)
            qkv = layer(f"{name}.qkv", flat, 3 * width, 1)
            out = torch.empty_like(flat)
            for head in range(width // head_channels):
                if new_order:  # all queries, all keys, all values
                    starts = [part * width + head * head_channels for part in range(3)]
                else:  # each head's query, key and value
                    starts = [(3 * head + part) * head_channels for part in range(3)]
                q, k, v = (qkv[:, start : start + head_channels] for start in starts)
                scores = torch.einsum("nct,ncs->nts", q, k) / math.sqrt(head_channels)
                first = head * head_channels
                out[:, first : first + head_channels] = torch.einsum(
                    "nts,ncs->nct", scores.softmax(-1), v
                )
            return h + layer(f"{name}.proj_out", out, width, 1).reshape(h.shape)

        hidden, half = 4 * self.channels, self.channels // 2
        angles = timesteps[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        embedding = layer("time_embed.2", F.silu(layer("time_embed.0", waves, hidden)), hidden)
        if self.classes:
            embedding = embedding + tensor("label_emb.weight", self.classes, hidden)[labels]
        h = layer("input_blocks.0.0", x, self.widths[0], 3, 3)
        skips = [h]
        for level, width in enumerate(self.widths):
            for _ in range(self.blocks):
                name = f"input_blocks.{len(skips)}"
                h = residual(f"{name}.0", h, width)
                if level in self.attention:
                    h = attention(f"{name}.1", h)
                skips.append(h)
            if level < len(self.widths) - 1:
                name = f"input_blocks.{len(skips)}.0"
                if self.updown:
                    h = residual(name, h, width, "down")
                else:
                    h = layer(f"{name}.op", h, width, 3, 3, stride=2)
                skips.append(h)
        h = residual("middle_block.0", h, width)
        h = attention("middle_block.1", h)
        h = residual("middle_block.2", h, width)
        rows = len(skips)
        for level, width in reversed(list(enumerate(self.widths))):
            for index in range(self.blocks + 1):
                name = f"output_blocks.{rows - len(skips)}"
                h = residual(f"{name}.0", torch.cat([h, skips.pop()], dim=1), width)
                if level in self.attention:
                    h = attention(f"{name}.1", h)
                if level > 0 and index == self.blocks:
                    last = f"{name}.{2 if level in self.attention else 1}"
                    if self.updown:
                        h = residual(last, h, width, "up")
                    else:
                        h = F.interpolate(h, scale_factor=2.0)
                        h = layer(f"{last}.conv", h, width, 3, 3)
        return layer("out.2", F.silu(norm("out.0", h)), self.outputs, 3, 3)
