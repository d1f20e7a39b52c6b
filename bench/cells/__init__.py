"""One cell: what defines it, its rows, its form on the disk, and how it is read back."""
