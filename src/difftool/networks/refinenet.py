"""The dilated RefineNet of NCSN (Song & Ermon 2019, appendix A) and NCSNv2 (2020, appendix A).

Both networks are this one with other norms: `norm` is in the residual blocks and before the last
convolution, `inner_norm` in the refinement blocks. A norm is a module called as norm(x, c); c is
the conditioning, in parts. A `NormFactory` makes a norm for a number of channels.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NormFactory = Callable[[int], nn.Module]

EPSILON = 1e-5


def instance_norm_plus(x: Tensor, channels: int, affine: Sequence[Tensor]) -> Tensor:
    """Return InstanceNorm++ of x [N, channels, H, W]: gamma * (IN(x) + alpha * m) + beta.

    affine is gamma, alpha and beta, [N, channels] or [channels] each. m is the mean of x that
    instance norm removes, normalized over channels. The paper (Song & Ermon 2019, eq. 10 and 11)
    has no gamma on the alpha term, but the published weights do. The variance of m is unbiased.
    """
    gamma, alpha, beta = affine
    bessel = (channels - 1) / channels  # from layer norm's biased variance to the unbiased one
    mean = F.layer_norm(x.mean((2, 3)), (channels,), eps=EPSILON * bessel) * bessel**0.5
    shift = gamma * alpha * mean + beta
    return F.instance_norm(x, eps=EPSILON) * gamma[..., None, None] + shift[..., None, None]


class InstanceNormPlus(nn.Module):
    """InstanceNorm++ with gamma, alpha and beta of its own; it ignores c."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.gamma = nn.Parameter(torch.empty(channels).normal_(1, 0.02))
        self.alpha = nn.Parameter(torch.empty(channels).normal_(1, 0.02))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, c: Sequence[Tensor]) -> Tensor:
        return instance_norm_plus(x, self.channels, (self.gamma, self.alpha, self.beta))


class ConditionalInstanceNormPlus(nn.Module):
    """InstanceNorm++ whose gamma, alpha and beta are the three parts of c from `first` on."""

    def __init__(self, channels: int, first: int) -> None:
        super().__init__()
        self.channels = channels
        self.first = first

    def forward(self, x: Tensor, c: Sequence[Tensor]) -> Tensor:
        return instance_norm_plus(x, self.channels, c[self.first : self.first + 3])


class NoNorm(nn.Module):
    """A stand-in for those of NCSN's norms that NCSNv2 does not have."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, c: Sequence[Tensor]) -> Tensor:
        return x


class ResidualBlock(nn.Module):
    """Twice norm, ELU and convolution, plus a shortcut.

    The first block of a stage is an `entry`: its shortcut is a convolution even if the width
    stays. `pooled` halves the resolution by 2x2 averaging after the convolutions.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        norm: NormFactory,
        *,
        dilation: int = 1,
        entry: bool = False,
        pooled: bool = False,
    ) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2) if pooled else nn.Identity()
        self.norm1 = norm(inputs)
        self.conv1 = _conv3x3(inputs, inputs, dilation=dilation)
        self.norm2 = norm(inputs)
        self.conv2 = _conv3x3(inputs, outputs, dilation=dilation)
        self.shortcut: nn.Module = nn.Identity()
        if pooled:
            self.shortcut = nn.Conv2d(inputs, outputs, 1)
        elif entry:
            self.shortcut = _conv3x3(inputs, outputs, dilation=dilation)

    def forward(self, x: Tensor, c: Sequence[Tensor]) -> Tensor:
        h = self.conv1(F.elu(self.norm1(x, c)))
        h = self.conv2(F.elu(self.norm2(h, c)))
        return self.pool(self.shortcut(x) + h)


class ResidualConvs(nn.Module):
    """RCU: `units` residual units, each twice norm, ELU and convolution."""

    def __init__(self, channels: int, units: int, norm: NormFactory) -> None:
        super().__init__()
        count = 2 * units
        self.norms = nn.ModuleList(norm(channels) for _ in range(count))
        self.convs = nn.ModuleList(_conv3x3(channels, channels, bias=False) for _ in range(count))

    def forward(self, x: Tensor, c: Sequence[Tensor]) -> Tensor:
        layers = list(zip(self.norms, self.convs, strict=True))
        for first, second in zip(layers[::2], layers[1::2], strict=True):
            h = x
            for norm, conv in (first, second):
                h = conv(F.elu(norm(h, c)))
            x = x + h
        return x


class Fusion(nn.Module):
    """MSF: the sum of two inputs; with `resize` the second one is smaller and is enlarged first."""

    def __init__(
        self, fine: int, coarse: int, outputs: int, norm: NormFactory, resize: bool
    ) -> None:
        super().__init__()
        self.resize = resize
        self.norms = nn.ModuleList(norm(channels) for channels in (fine, coarse))
        self.convs = nn.ModuleList(_conv3x3(channels, outputs) for channels in (fine, coarse))

    def forward(self, fine: Tensor, coarse: Tensor, c: Sequence[Tensor]) -> Tensor:
        fine, coarse = (
            conv(norm(h, c))
            for norm, conv, h in zip(self.norms, self.convs, (fine, coarse), strict=True)
        )
        if self.resize:
            coarse = F.interpolate(coarse, fine.shape[2:], mode="bilinear", align_corners=True)
        return fine + coarse


class ChainedPooling(nn.Module):
    """CRP: x plus two ever wider poolings of it, each with a convolution."""

    def __init__(self, channels: int, norm: NormFactory, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool
        self.norms = nn.ModuleList(norm(channels) for _ in range(2))
        self.convs = nn.ModuleList(_conv3x3(channels, channels, bias=False) for _ in range(2))

    def forward(self, x: Tensor, c: Sequence[Tensor]) -> Tensor:
        x = path = F.elu(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            path = conv(self.pool(norm(path, c)))
            x = x + path
        return x


class RefineBlock(nn.Module):
    """A refinement of one stage's features by those of the refine block below, if there is one."""

    def __init__(
        self,
        inputs: int,
        below: int | None,
        outputs: int,
        norm: NormFactory,
        pool: nn.Module,
        *,
        resize: bool,
        output_units: int,
    ) -> None:
        super().__init__()
        self.adapt = ResidualConvs(inputs, 2, norm)
        if below is not None:
            self.adapt_below = ResidualConvs(below, 2, norm)
            self.fusion = Fusion(inputs, below, outputs, norm, resize)
        self.pooling = ChainedPooling(outputs, norm, pool)
        self.output = ResidualConvs(outputs, output_units, norm)

    def forward(self, x: Tensor, below: Tensor | None, c: Sequence[Tensor]) -> Tensor:
        h = self.adapt(x, c)
        if below is not None:
            h = self.fusion(h, self.adapt_below(below, c), c)
        return self.output(self.pooling(h, c), c)


class RefineNet(nn.Module):
    """RefineNet: x [N, in_channels, H, W] -> [N, in_channels, H, W].

    The first stage keeps the resolution. The last two keep it as well, but dilate by 2 and by 4.
    Every stage between halves it. Refinement runs from the last stage to the first, and each refine
    block has the width of the stage before its own.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        multipliers: Sequence[int],
        *,
        norm: NormFactory,
        inner_norm: NormFactory,
        pool: nn.Module,
    ) -> None:
        super().__init__()
        widths = [channels * multiplier for multiplier in multipliers]
        last = len(widths) - 1
        dilations = [1] * (len(widths) - 2) + [2, 4]
        pooled = [0 < level < last - 1 for level in range(len(widths))]

        self.conv_in = _conv3x3(in_channels, channels)
        self.stages = nn.ModuleList()
        for level, outputs in enumerate(widths):
            inputs, dilation = widths[max(level - 1, 0)], dilations[level]
            entry = ResidualBlock(
                inputs, outputs, norm, dilation=dilation, entry=level > 0, pooled=pooled[level]
            )
            second = ResidualBlock(outputs, outputs, norm, dilation=dilation)
            self.stages.append(nn.ModuleList((entry, second)))

        self.refine = nn.ModuleList()  # last stage first, as it runs
        for level in range(last, -1, -1):
            block = RefineBlock(
                widths[level],
                None if level == last else widths[level],
                widths[max(level - 1, 0)],
                inner_norm,
                pool,
                resize=level < last and pooled[level + 1],
                output_units=3 if level == 0 else 1,
            )
            self.refine.append(block)
        self.norm_out = norm(widths[0])
        self.conv_out = _conv3x3(widths[0], in_channels)

    def forward(self, x: Tensor, c: Sequence[Tensor]) -> Tensor:
        h = self.conv_in(x)
        features = []
        for stage in self.stages:
            for block in stage.children():
                h = block(h, c)
            features.append(h)
        below = None
        for refine, feature in zip(self.refine, reversed(features), strict=True):
            below = refine(feature, below, c)
        return self.conv_out(F.elu(self.norm_out(below, c)))


def _conv3x3(inputs: int, outputs: int, *, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=bias)
