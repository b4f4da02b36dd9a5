"""From text to token spans: corpus, tokenizer, bytes per token, shards, manifest, loaders.

The files are those of the parameter-golf data, so shards that were exported elsewhere in that
format are used as they are, once ``adopt`` has described them by a manifest. Only ``loader`` and
``coprime`` import torch.
"""
