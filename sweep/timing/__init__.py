"""Read GPUs while a cell runs, and judge whether its timing was disturbed."""
