"""What does it cost? Each module prints a small table and writes JSON. Read the ratios."""
