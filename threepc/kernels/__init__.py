"""Numba kernels on plain arrays of ring words. They know nothing of protocols, parties or files."""
