"""Rows in, statistics and figures out: what a sweep has found, and how sure one may be of it."""
