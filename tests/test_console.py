from threepc import console


def test_a_name_that_looks_like_markup_is_shown_as_it_is(capsys):
    table = console.new_table("class")
    for name in ("[bold]cat[/bold]", "[/nothing]", ":smiley: dog"):
        table.add_row(name)
    console.print_table(table)
    assert capsys.readouterr().out.splitlines()[2:] == ["[bold]cat[/bold]", "[/nothing]", ":smiley: dog"]
