"""What an activation costs: steps, time, nodes, and whether other settings change the answer."""
