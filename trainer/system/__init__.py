"""The machine below: its processor and GPUs, processes that die with their parent, Parquet."""
