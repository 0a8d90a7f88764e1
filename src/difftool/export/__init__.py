"""From checkpoints to bundles: the step module, ONNX, TorchScript, and their verification."""
