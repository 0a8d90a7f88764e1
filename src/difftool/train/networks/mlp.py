"""The score network of NCSN's two-dimensional experiment (Song & Ermon 2019, appendix B.1)."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from difftool.train.networks.checks import check_at_least


class MLP(nn.Module):
    """Linear layers with softplus between them: x [N, dimensions] -> [N, dimensions].

    Args:
        hidden: width of the hidden layers.
        layers: linear layers, at least 2.
        levels: noise levels; cond is an index below it, and each hidden layer adds an offset that
            is learned per level. None: the network does not see cond.
    """

    def __init__(
        self, *, dimensions: int, hidden: int = 128, layers: int = 3, levels: int | None = None
    ) -> None:
        super().__init__()
        check_at_least(1, "dimensions", dimensions)
        check_at_least(1, "hidden", hidden)
        check_at_least(2, "layers", layers)
        if levels is not None:
            check_at_least(1, "levels", levels)
        widths = [dimensions] + [hidden] * (layers - 1)
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.out = nn.Linear(hidden, dimensions)
        self.offsets: nn.Embedding | None = None
        if levels is not None:
            self.offsets = nn.Embedding(levels, hidden * (layers - 1))
            nn.init.zeros_(self.offsets.weight)

    def condition(self, cond: Tensor) -> Tensor:
        """cond [R] (level indices) -> the offsets of all hidden layers [R, C], or [R, 0]."""
        if self.offsets is None:
            return cond.new_zeros(cond.shape[0], 0)
        return self.offsets(cond.long())

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        offsets = None if self.offsets is None else c.chunk(len(self.hidden), dim=1)
        for index, layer in enumerate(self.hidden):
            x = layer(x)
            if offsets is not None:
                x = x + offsets[index]
            x = F.softplus(x)
        return self.out(x)
