"""A bundle in another form, without PyTorch: 16 or 8 bits, TensorRT, one portable graph, a page."""
