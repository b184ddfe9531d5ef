"""Readers of the public data sets, and joint transforms of images and targets."""
