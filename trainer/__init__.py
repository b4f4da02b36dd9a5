"""One cell on one node: a specification in, a report out. Knows nothing of Ray, sweeps or other cells."""
