"""The cluster: what a driver asks of it (interface), and Ray, which answers."""
