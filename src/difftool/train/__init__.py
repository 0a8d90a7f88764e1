"""Training with torch: networks, data, losses, the trainer and its checkpoints."""
