"""Numbers from arrays: metrics with their intervals, bounds from draws. No torch, no files."""
