"""On the node: the agent, its ranks, and what they leave."""
