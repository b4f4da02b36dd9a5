"""Run a plan: leases, attempts, and what a person sees meanwhile."""
