"""Linear models and their distributions: arrays in, numbers out, no sweep in sight."""
