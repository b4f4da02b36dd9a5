"""What a script prints: the grammar of its lines, and how values are read from them."""
