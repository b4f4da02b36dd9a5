"""Statistics of one setting: means, comparisons with the reference, best slope, decision."""
