"""What a person types: the verbs, the selection of cells, one session of a driver."""
