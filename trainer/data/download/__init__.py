"""Fetch the published FineWeb export."""
