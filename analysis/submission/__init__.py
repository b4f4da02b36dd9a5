"""Make a records folder of one activation's seeds: the script, its logs, a README, the numbers."""
