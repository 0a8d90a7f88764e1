"""From checkpoints to bundles: the step module, ONNX and TorchScript."""
