"""The sweep file and the grid of cells that it expands to."""
