"""The GPT of this study, in two halves: ``body`` gives hidden states and ``head`` gives logits."""

from trainer.model.gpt import GPT, Tap

__all__ = ["GPT", "Tap"]
