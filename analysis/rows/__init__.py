"""Read a sweep's rows, name them, and say what is complete and what may be compared."""
