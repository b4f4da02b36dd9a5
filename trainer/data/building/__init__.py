"""Make datasets: from text, from the corpus that Python ships, from shards that exist."""
