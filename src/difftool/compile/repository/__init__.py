"""A model repository for Triton, from a bundle."""
