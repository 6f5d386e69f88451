"""Benchmarks of threepc, run from a checkout: `python -m benchmarks --help`. README.md shows the last results."""
