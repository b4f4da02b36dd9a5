"""Statistics of one setting: means, comparisons, variances, pairs, deltas."""
