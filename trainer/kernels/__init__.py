"""Faster forms of the model's inner functions; each computes exactly what its plain form says."""
