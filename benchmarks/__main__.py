"""`python -m benchmarks`."""
import sys

import click
from threepc.errors import ThreepcError

from benchmarks.command import bench

if __name__ == "__main__":
    try:
        bench(prog_name="python -m benchmarks")
    except ThreepcError as error:
        click.echo(f"benchmarks: {error}", err=True)
        sys.exit(error.exit_status)
