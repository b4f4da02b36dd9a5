"""Start processes on a node that never outlive who started them, and end them with all they own."""
