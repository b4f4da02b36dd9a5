"""Draft a recipe for a training script of the user's own, by its syntax tree alone."""
