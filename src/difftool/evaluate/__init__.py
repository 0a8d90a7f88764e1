"""How good samples are: distances between sets of samples, without PyTorch."""
