"""Class labels in a network: a learned vector for each class, and one for the null label."""

from torch import Tensor, nn

from difftool.errors import UsageError
from difftool.networks.checks import check_at_least


def label_table(classes: int, null_label: bool, width: int) -> nn.Embedding | None:
    """Make a learned vector for each class, and with `null_label` one more, of the label `classes`.

    Returns None without classes. UsageError if there is a null label and no class beside it.
    """
    check_at_least(0, "classes", classes)
    if not classes:
        if null_label:
            raise UsageError("null_label is given without classes", "give classes too")
        return None
    return nn.Embedding(classes + null_label, width)


def add_label(c: Tensor, table: nn.Embedding | None, label: Tensor | None) -> Tensor:
    """c [R, C] plus the vectors of label int64 [R]; c itself in a network without classes.

    UsageError if there are labels and no classes, or classes and no labels.
    """
    if (table is None) != (label is None):
        problem = "no classes" if table is None else "classes, and was given no labels"
        raise UsageError(f"this network has {problem}", "give labels to one with classes only")
    return c if table is None or label is None else c + table(label)
