"""What the text of a script says without running it: syntax, packing, variables, activation."""
