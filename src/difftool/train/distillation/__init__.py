"""Distillation: a student that samples in a few steps, from a trained model."""
