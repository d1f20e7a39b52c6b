"""From a batch of images to rows: attacked by the worker, bounded by the certifier."""
