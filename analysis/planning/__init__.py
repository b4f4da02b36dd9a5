"""What a grid can resolve, how many seeds that takes, and the second stage of a screening."""
