"""Class labels in a network: a learned vector for each class, and one for the null label."""

from torch import Tensor, nn

from difftool.errors import UsageError
from difftool.networks.checks import check_at_least


def label_table(classes: int, null_label: bool, width: int) -> nn.Embedding | None:
    """Make a learned vector for each class, and one for the null label if there is one.

    Return None without classes. UsageError if there is a null label but no class.
    """
    check_at_least(0, "classes", classes)
    if not classes:
        if null_label:
            raise UsageError("null_label is given without classes", "give classes too")
        return None
    return nn.Embedding(classes + null_label, width)


def add_label(c: Tensor, table: nn.Embedding | None, label: Tensor | None) -> Tensor:
    """Add the vectors of label, int64 [R], to c [R, C]; without classes return c itself.

    UsageError if there are labels and no classes, or classes and no labels.
    """
    if (table is None) != (label is None):
        problem = "no classes" if table is None else "classes, and was given no labels"
        raise UsageError(f"this network has {problem}", "only a network with classes takes labels")
    return c if table is None or label is None else c + table(label)
