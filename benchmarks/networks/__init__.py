"""Which networks run: `python -m benchmarks.networks` tries every family, each in a process of its own, and writes docs/networks.md."""
