"""Rules of operators that move, take or repeat numbers."""

import math

from difftool.preflight.shapes.operation import Made, Operation
from difftool.preflight.shapes.sized import INT64


def reshape(op: Operation) -> Made:
    x, wanted = op.input(0), op.whole(1)
    if not op.integer("allowzero", 0):  # 0 then means "as in the input"
        op.require(
            all(size or axis < len(x.shape) for axis, size in enumerate(wanted)),
            f"takes a size that is not there for {wanted}",
        )
        wanted = [size or x.shape[axis] for axis, size in enumerate(wanted)]
    count, free = math.prod(x.shape), wanted.count(-1)
    known = math.prod(size for size in wanted if size != -1)
    op.require(
        free <= 1 and min(wanted, default=0) >= -1 and (not free or known > 0),
        f"cannot be given the sizes {wanted}",
    )
    if free:
        wanted[wanted.index(-1)] = count // known
    op.require(math.prod(wanted) == count, f"does not fill the sizes {wanted}")
    return [(x.kind, tuple(wanted))]


def flatten(op: Operation) -> Made:
    x = op.input(0)
    axis, rank = op.integer("axis", 1), len(x.shape)
    op.require(-rank <= axis <= rank, f"has no axis {axis}")
    op.require(0 not in x.shape, "is empty")  # OpenVINO gives other sizes then
    axis += rank if axis < 0 else 0
    return [(x.kind, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))]


def squeeze(op: Operation) -> Made:
    x = op.input(0)
    if op.optional(1) is None:
        return [(x.kind, tuple(size for size in x.shape if size != 1))]
    axes = op.axes(op.whole(1), len(x.shape))
    op.require(len(axes) > 0, "names no axis")  # ONNX Runtime drops all of size 1 then
    op.require(all(x.shape[axis] == 1 for axis in axes), "drops an axis of another size than 1")
    return [(x.kind, tuple(size for axis, size in enumerate(x.shape) if axis not in axes))]


def unsqueeze(op: Operation) -> Made:
    x, axes = op.input(0), op.whole(1)
    op.require(len(axes) > 0, "names no axis")  # OpenVINO adds one then
    rank = len(x.shape) + len(axes)
    new, old = set(op.axes(axes, rank)), iter(x.shape)
    return [(x.kind, tuple(1 if axis in new else next(old) for axis in range(rank)))]


def transpose(op: Operation) -> Made:
    x = op.input(0)
    rank = len(x.shape)
    order = op.integers("perm", range(rank - 1, -1, -1))
    op.require(sorted(order) == list(range(rank)), "its perm is not an order of its axes")
    return [(x.kind, tuple(x.shape[axis] for axis in order))]


def concat(op: Operation) -> Made:
    parts = op.all_inputs()
    first = parts[0].shape
    axis = op.axis(op.integer("axis"), len(first))
    before, after = first[:axis], first[axis + 1 :]
    for part in parts[1:]:
        shape = part.shape
        op.require(
            len(shape) == len(first) and shape[:axis] == before and shape[axis + 1 :] == after,
            "its parts do not fit each other",
        )
    return [(parts[0].kind, (*before, sum(part.shape[axis] for part in parts), *after))]


def split(op: Operation) -> Made:
    x, count = op.input(0), len(op.node.outputs)
    axis = op.axis(op.integer("axis", 0), len(x.shape))
    size = x.shape[axis]
    op.require(count > 0, "gives nothing")
    if op.optional(1) is not None:
        sizes = op.whole(1)
    else:
        if op.opset >= 18:
            op.require(op.integer("num_outputs", count) == count, "has other outputs than parts")
        elif size % count:
            raise op.refused(f"cannot cut {size} into {count} equal parts")
        part = -(-size // count)
        sizes = [part] * (count - 1) + [size - part * (count - 1)]
    op.require(
        len(sizes) == count and min(sizes) >= 0 and sum(sizes) == size,
        f"cannot cut {size} into {count} parts",
    )
    return [(x.kind, (*x.shape[:axis], part, *x.shape[axis + 1 :])) for part in sizes]


def read_slices(op: Operation) -> list[tuple[int, range]]:
    """Return the axes that a Slice cuts, and the indices that it takes from each."""
    x, starts, ends = op.input(0), op.whole(1), op.whole(2)
    axes = op.whole(3) if op.optional(3) is not None else list(range(len(starts)))
    steps = op.whole(4) if op.optional(4) is not None else [1] * len(starts)
    op.require(
        len(starts) == len(ends) == len(axes) == len(steps) and 0 not in steps,
        "its starts, ends, axes and steps do not fit",
    )
    found = []
    for axis, start, end, step in zip(
        op.axes(axes, len(x.shape)), starts, ends, steps, strict=True
    ):
        size = x.shape[axis]
        # ONNX Runtime takes these two ends for "no end", also if steps go down.
        op.require(step > 0 or end not in (2**31 - 1, 2**63 - 1), "has an end with two meanings")
        start, end = (place + size if place < 0 else place for place in (start, end))
        # Unlike in Python, a start before the first index means the first, even if steps go down.
        low, high = (0, size) if step > 0 else (-1, size - 1)
        start, end = min(max(start, 0), high), min(max(end, low), high)
        found.append((axis, range(start, end, step) if size else range(0)))
    return found


def slice_(op: Operation) -> Made:
    x = op.input(0)
    shape = list(x.shape)
    for axis, taken in read_slices(op):
        shape[axis] = len(taken)
    return [(x.kind, tuple(shape))]


def pad(op: Operation) -> Made:
    x, pads = op.input(0), op.whole(1)
    rank = len(x.shape)
    given = op.opset >= 18 and op.optional(3) is not None
    axes = op.axes(op.whole(3), rank) if given else list(range(rank))
    op.require(len(pads) == 2 * len(axes), "its pads do not fit its axes")
    shape = list(x.shape)
    for index, axis in enumerate(axes):
        shape[axis] += pads[index] + pads[index + len(axes)]
    op.require(min(shape, default=0) >= 0, "cuts off more than there is")
    return [(x.kind, tuple(shape))]


def tile(op: Operation) -> Made:
    x, repeats = op.input(0), op.whole(1)
    op.require(
        len(repeats) == len(x.shape) and min(repeats, default=0) >= 0, "its repeats do not fit"
    )
    return [(x.kind, tuple(size * count for size, count in zip(x.shape, repeats, strict=True)))]


def expand(op: Operation) -> Made:
    x, wanted = op.input(0), op.whole(1)
    op.require(min(wanted, default=0) >= 0, "a size is negative")
    return [(x.kind, op.broadcast(x.shape, tuple(wanted)))]


def gather(op: Operation) -> Made:
    x, indices = op.input(0), op.input(1)
    axis = op.axis(op.integer("axis", 0), len(x.shape))
    return [(x.kind, x.shape[:axis] + indices.shape + x.shape[axis + 1 :])]


def gather_elements(op: Operation) -> Made:
    x, indices = op.input(0), op.input(1)
    op.axis(op.integer("axis", 0), len(x.shape))
    op.require(len(x.shape) == len(indices.shape), "its indices have other axes")
    return [(x.kind, indices.shape)]


def gather_nd(op: Operation) -> Made:
    x, indices, batch = op.input(0), op.input(1), op.integer("batch_dims", 0)
    op.require(
        0 <= batch < min(len(x.shape), len(indices.shape))
        and indices.shape[:batch] == x.shape[:batch]
        and 0 < indices.shape[-1] <= len(x.shape) - batch,
        "its indices do not fit",
    )
    return [(x.kind, indices.shape[:-1] + x.shape[batch + indices.shape[-1] :])]


def scatter_elements(op: Operation) -> Made:
    x, indices, updates = op.input(0), op.input(1), op.input(2)
    op.require(
        len(x.shape) == len(indices.shape) and indices.shape == updates.shape,
        "its indices or updates do not fit",
    )
    return [(x.kind, x.shape)]


def scatter_nd(op: Operation) -> Made:
    x, indices, updates = op.input(0), op.input(1), op.input(2)
    op.require(
        len(indices.shape) > 0
        and 0 < indices.shape[-1] <= len(x.shape)
        and updates.shape == indices.shape[:-1] + x.shape[indices.shape[-1] :],
        "its indices or updates do not fit",
    )
    return [(x.kind, x.shape)]


def top_k(op: Operation) -> Made:
    x, count = op.input(0), op.one(1)
    axis = op.axis(op.integer("axis", -1), len(x.shape))
    op.require(0 <= count <= x.shape[axis], f"takes {count} of {x.shape[axis]}")
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    return [(x.kind, shape), (INT64, shape)]


def depth_to_space(op: Operation) -> Made:
    x, block = op.input(0), op.integer("blocksize")
    op.require(
        len(x.shape) == 4 and block > 0 and x.shape[1] % block**2 == 0, "its channels do not fit"
    )
    n, c, h, w = x.shape
    return [(x.kind, (n, c // block**2, h * block, w * block))]


def space_to_depth(op: Operation) -> Made:
    x, block = op.input(0), op.integer("blocksize")
    op.require(
        len(x.shape) == 4 and block > 0 and not any(size % block for size in x.shape[2:]),
        "its height or width does not fit",
    )
    n, c, h, w = x.shape
    return [(x.kind, (n, c * block**2, h // block, w // block))]


def non_zero(op: Operation) -> Made:
    # The output's size is the count of numbers other than 0, so the numbers must be known.
    x, found = op.input(0), op.numbers(0)
    return [(INT64, (max(len(x.shape), 1), int((found != 0).sum())))]
