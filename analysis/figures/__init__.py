"""Figures of a sweep: which there are (catalog), how they are composed, and their panels."""
