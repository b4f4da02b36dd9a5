"""One cell on one node: a specification in, a report out. Knows nothing of other cells."""
