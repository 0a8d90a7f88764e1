"""The score network of NCSN's two-dimensional experiment (Song & Ermon 2019, appendix B.1)."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from difftool.networks.checks import MOST_LAYERS, check_at_least, check_at_most
from difftool.networks.labels import add_label, label_table


class MLP(nn.Module):
    """Linear layers with softplus between them: x [N, dimensions] -> [N, dimensions].

    Args:
        hidden: width of the hidden layers.
        layers: number of linear layers, at least 2.
        levels: number of noise levels. cond is an index below it, and each hidden layer adds an
            offset that is learned for each level. With None the network does not see cond.
        classes, null_label: labels 0 .. `classes` - 1, and with `null_label` the label `classes`.
            Each hidden layer adds an offset that is learned for each label, too.
    """

    def __init__(
        self,
        *,
        dimensions: int,
        hidden: int = 128,
        layers: int = 3,
        levels: int | None = None,
        classes: int = 0,
        null_label: bool = False,
    ) -> None:
        super().__init__()
        check_at_least(1, "dimensions", dimensions)
        check_at_least(1, "hidden", hidden)
        check_at_least(2, "layers", layers)
        check_at_most(MOST_LAYERS, "layers", layers)
        if levels is not None:
            check_at_least(1, "levels", levels)
        widths = [dimensions] + [hidden] * (layers - 1)
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.out = nn.Linear(hidden, dimensions)
        self.offsets: nn.Embedding | None = None
        if levels is not None:
            self.offsets = nn.Embedding(levels, hidden * (layers - 1))
            nn.init.zeros_(self.offsets.weight)  # at first all levels share one network
        self.label_offsets = label_table(classes, null_label, hidden * (layers - 1))
        if self.label_offsets is not None:
            nn.init.zeros_(self.label_offsets.weight)

    def condition(self, cond: Tensor, label: Tensor | None = None) -> Tensor:
        """Map cond [R], level indices, and label, int64 [R], to all hidden offsets, [R, C].

        Between two levels they are interpolated. C is 0 for a network with neither.
        """
        width = 0 if self.label_offsets is None else self.label_offsets.embedding_dim
        blank = cond.new_zeros(cond.shape[0], width)
        c = blank if self.offsets is None else _interpolated(self.offsets, cond)
        return add_label(c, self.label_offsets, label)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        seen = self.offsets is not None or self.label_offsets is not None
        offsets = c.chunk(len(self.hidden), dim=1) if seen else None
        for index, layer in enumerate(self.hidden):
            x = layer(x)
            if offsets is not None:
                x = x + offsets[index]
            x = F.softplus(x)
        return self.out(x)


def _interpolated(table: nn.Embedding, cond: Tensor) -> Tensor:
    """Return the rows at cond [R], interpolated if it is not whole; [R, C]."""
    low = cond.long()
    high = (low + 1).clamp(max=table.num_embeddings - 1)
    return table(low) + (cond - low)[:, None] * (table(high) - table(low))
