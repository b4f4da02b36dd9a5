"""Scores of the validation text in bits per byte: contiguous, sliding, test-time training, SLOT."""
