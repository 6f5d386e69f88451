"""`threepc bench` finds the checkout's benchmarks, and says so where there are none."""

import pytest
from click.testing import CliRunner

from threepc.cli.bench import bench, benchmarks
from threepc.errors import InputError


def test_options_reach_the_benchmarks_own_command():
    outcome = CliRunner().invoke(bench, ["--help"])
    assert outcome.exit_code == 0
    assert "--only" in outcome.output and "threepc bench" in outcome.output


def test_an_installation_without_benchmarks_says_where_they_are(tmp_path):
    with pytest.raises(InputError, match=r"run 'python -m benchmarks' in a checkout of its repository$"):
        benchmarks(tmp_path)
