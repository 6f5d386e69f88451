"""A package, so that `python -m tests.mutations` finds this folder: a dependency installs one of the same name."""
