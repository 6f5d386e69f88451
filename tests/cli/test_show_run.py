"""What is said of a run beside its tables."""

from threepc.cli.show_run import remarks


def test_figures_that_lack_something_say_so():
    assert remarks({}) == []
    assert remarks({"incomplete": "the server is gone"}) == ["The figures lack what a party did not say any more: the server is gone."]
