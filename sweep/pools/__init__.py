"""Implementations of the pool in ``sweep/lease.py``; the driver knows only the interface."""
