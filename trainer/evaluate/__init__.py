"""How well does a model predict the validation text? Bits per byte, every target scored once."""
