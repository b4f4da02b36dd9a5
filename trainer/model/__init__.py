"""The GPT of this study, in two halves: ``body`` gives hidden states and ``head`` gives logits."""

from trainer.model.gpt import GPT
from trainer.model.layers import Tap

__all__ = ["GPT", "Tap"]
