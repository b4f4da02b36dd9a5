"""Start ranks as copies of a process that has imported everything."""
