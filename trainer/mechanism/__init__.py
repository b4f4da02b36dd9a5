"""Measure what the layers do and what became of their weights."""
