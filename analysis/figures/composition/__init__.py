"""Figures composed of panels and captions: FigureData -> Figure."""
