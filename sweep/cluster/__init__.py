"""The cluster that runs cells: its interface to the driver, and Ray behind it."""
