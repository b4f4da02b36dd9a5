"""Datasets, from text to token batches: shards, manifest, tokenizer, byte counts, loaders.

The files are those of the parameter-golf data, so shards that were exported elsewhere in that
format are used as they are, once ``adopt`` has described them by a manifest. Only ``loader`` and
``prefetch`` import torch.
"""
