"""Let one row number stand for a whole batch."""

import onnx_ir as ir

ONE_OR_BATCH = "one_or_batch"


def share_rows(graph: ir.Graph) -> None:
    """Give `row` an axis of its own, which may also have size 1; what it reads then broadcasts.

    This is faster for small samples. With N row numbers, each coefficient is a column [N, 1], so
    every operator of the row handles the samples one by one, and the network reads the same row of
    cond_table N times. Shapes inside the graph that the exporter wrote name the batch, which is no
    longer true of all of them, so they are removed.
    """
    ends = {id(value) for value in (*graph.inputs, *graph.outputs)}
    for node in graph:
        for value in node.outputs:
            if id(value) not in ends:
                value.shape = None
    for value in (*graph.inputs, *graph.outputs):
        if value.name in ("row", "row_next"):
            value.shape = ir.Shape([ONE_OR_BATCH])
