"""The generated parts of the documents are what the source says: costs of protocols, and messages of errors."""

from tests.generated import error_messages, protocol_costs

CURE = "run: python -m tests.generated"


def test_the_costs_of_protocols_are_the_declared_ones():
    page = protocol_costs.PAGE.read_text()
    assert protocol_costs.TABLE.search(page)
    assert page == protocol_costs.written(page), CURE


def test_every_file_with_messages_has_one_place():
    page, known = error_messages.PAGE.read_text(), error_messages.by_file()
    places = error_messages.places(page)
    files = [file for place in places for file in error_messages.in_place(place, set(places), known)]
    assert len(places) == len(set(places)) and len(files) == len(set(files))
    assert set(files) == set(known), f"name these files or their folder under a heading of docs/errors.md, then {CURE}"
    assert {place for place in places if not place.endswith("/")} - set(known) == set(), "these files make no error any more"


def test_the_messages_are_those_of_the_source():
    page = error_messages.PAGE.read_text()
    assert page == error_messages.written(page, error_messages.by_file()), CURE


def test_messages_are_found_however_they_are_made():
    source = """
raise InputError(f"{path}: {len(a)} images" + (" more" if b else " fewer"))
raise RunError(text)
raise self.wrong(key, "choose one")
raise click.BadParameter("no `number`")
"""
    assert list(error_messages.messages(source)) == [(2, "{path}: … images more/ fewer"), (2, "choose one"), (2, "no `number`")]


def test_a_folder_stands_for_its_files_that_are_named_nowhere():
    known = ["threepc/a.py", "threepc/plan/b.py", "threepc/plan/c.py"]
    assert error_messages.in_place("threepc/plan/", {"threepc/plan/", "threepc/plan/b.py"}, known) == ["threepc/plan/c.py"]
    assert error_messages.in_place("threepc/", {"threepc/"}, known) == ["threepc/a.py"]
    assert error_messages.in_place("threepc/gone.py", set(), known) == []


def test_lists_are_made_by_exit_status():
    page = "# A\n<!-- messages of a.py b.py -->\nold\n<!-- end -->\nrest\n"
    known = {"a.py": [(2, "bad"), (1, "lost")], "b.py": [(2, "bad"), (2, "a `b`")]}
    made = error_messages.written(page, known)
    assert "old" not in made and made.endswith("\n<!-- end -->\nrest\n")
    assert made.index("- `bad`") < made.index("- `` a `b` ``") < made.index("Exit status 1") < made.index("- `lost`")
    assert made.count("`bad`") == 1 and error_messages.written(made, known) == made
