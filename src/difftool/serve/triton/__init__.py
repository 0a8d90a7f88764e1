"""A model of Triton's Python backend: requests of Triton's clients share steps in it."""
