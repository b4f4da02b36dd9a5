"""From text to token spans: corpus, tokenizer, bytes per token, shards, manifest, loader.

The files are those of the parameter-golf data, so data that was exported elsewhere in that format
can be described by a manifest and used as it is. Only ``loader`` imports torch.
"""
