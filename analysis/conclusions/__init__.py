"""What may be concluded: what differs from the reference, the best slope, what to use."""
