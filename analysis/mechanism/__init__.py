"""Measures of layers and weights against what quantization did to the score."""
