"""Suites that are shipped: `bench run --suite NAME`."""
