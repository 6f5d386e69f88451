"""`python -m benchmarks`."""

import sys

import click

from benchmarks.command import bench
from threepc.errors import ThreepcError

if __name__ == "__main__":
    try:
        bench(prog_name="python -m benchmarks")
    except ThreepcError as error:
        click.echo(f"benchmarks: {error}", err=True)
        sys.exit(error.exit_status)
