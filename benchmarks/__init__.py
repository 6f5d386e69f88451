"""Benchmarks of threepc, run from a checkout: `python -m benchmarks --help`. Results land in benchmarks/results, the last ones are in README.md."""
