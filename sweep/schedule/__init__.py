"""Decide what runs next, where, and whether again. Pure: no clock, no disk."""
