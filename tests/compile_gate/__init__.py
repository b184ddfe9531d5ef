"""The compile gate: kernels are compiled ahead of time, without a GPU, and the code is read."""
