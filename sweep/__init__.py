"""Many cells on many nodes: expand a grid, lease nodes, run each cell once, keep every answer."""
