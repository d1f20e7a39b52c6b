"""Published figures, reported.csv, installed as bench.results: see README.md."""
