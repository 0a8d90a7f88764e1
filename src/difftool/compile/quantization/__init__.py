"""Step graphs whose network computes in 8 bits, calibrated on the model's own runs."""
