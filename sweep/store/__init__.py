"""Keep one immutable file per attempt, and make the tables from them."""
