"""The mathematics of score-based and diffusion models; numpy and the standard library only."""
