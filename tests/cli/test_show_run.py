"""What is said of a run beside its tables."""

from types import SimpleNamespace

from threepc.cli.show_run import _expectation, remarks


def test_figures_that_lack_something_say_so():
    assert remarks({}) == []
    assert remarks({"incomplete": "the server is gone"}) == ["The figures lack what a party did not say any more: the server is gone."]


def test_what_a_server_expects_is_said_as_its_word():
    card = SimpleNamespace(expected_error=0.0014, expected_images="3 artificial images")
    assert _expectation(SimpleNamespace(card=card)) == (
        "Error to expect, says the server: 0.14% of the largest result, on 3 artificial images."
    )
