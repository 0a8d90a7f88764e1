"""Letting one row number stand for a whole batch."""

import onnx_ir as ir

ONE_OR_BATCH = "one_or_batch"


def share_rows(graph: ir.Graph) -> None:
    """Give `row` an axis of its own, which may also be 1: what is read by it then broadcasts.

    For samples of few numbers that counts: a column of the table for each of them, [N, 1], makes
    every operator of the row go through them one by one, and the network reads N times the same
    row of cond_table. The shapes that the exporter had noted, with the batch in them, go.
    """
    ends = {id(value) for value in (*graph.inputs, *graph.outputs)}
    for node in graph:
        for value in node.outputs:
            if id(value) not in ends:
                value.shape = None
    for value in (*graph.inputs, *graph.outputs):
        if value.name in ("row", "row_next"):
            value.shape = ir.Shape([ONE_OR_BATCH])
