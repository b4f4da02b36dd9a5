"""What is held against tokenizer, tokens and byte sidecar before scores are taken of a dataset."""
