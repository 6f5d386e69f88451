"""A tiny network through the harness: its entries make tables, plots and the README."""

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from benchmarks import command, costmodel, earlier, kernels, machine, measure, passes, plots, readme, single, store, subjects, targets
from benchmarks.command import bench
from benchmarks.machine import describe, warning
from benchmarks.sections import EFFORT, SECTIONS, network_cases
from benchmarks.sheets import Sheet, sheets
from threepc.console import Display
from threepc.errors import InputError
from threepc.images.card import ModelCard, Preprocessing
from threepc.model.assemble import Settings, assemble
from threepc.party import one_host

TINY = subjects.Subject("tiny", "a tiny network", "tests")
EFFORT_OF_TESTS = measure.Effort(2, 2, 0.0)


@pytest.fixture(scope="module")
def entries():
    """A plain and a block case of a tiny network, over threads."""
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(subjects, "PLAIN_SECONDS", 0.0)
        patching.setattr(subjects, "assembled", _tiny)
        cases = [measure.Case(TINY, transport="memory"), measure.Case(TINY, patch=(2, 2), transport="memory")]
        return [measure.measure(case, EFFORT_OF_TESTS) for case in cases]


def _tiny(subject, ring, patch=None):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 8)).eval()
    card = ModelCard("tiny", Preprocessing((8, 8), (0.0,) * 3, (255.0,) * 3))
    example = torch.zeros(1, 3, 8, 8)
    return assemble(module, example, card, Settings(ring=ring, relu_spec=patch and subjects.uniform_spec(module, example, patch, "tiny")))


@pytest.fixture(scope="module")
def sections(entries):
    """What a run of the harness leaves, in small."""
    relus = [{"case": "passes/l48", "ring": 48} | passes.relu_passes(48, 1 << 12, 1)]
    rows = kernels.measure([kernels.Layer(4, 8, 8, 3), kernels.Layer(8, 8, 8, 3, groups=8)], 48, seconds=0)
    speed = [{"case": f"{name}/l48", "network": name, "ring": 48, "kernels": "plain", "layers": rows} for name in kernels.NETWORKS]
    grown = [entry | {"axis": "size", "x": x, "case": f"size {x}"} for x, entry in zip((8, 16), entries)]
    machine = describe()
    made = {"networks": entries, "relus": relus, "kernels": speed, "growth": grown}
    return {name: {"section": name, "machine": machine, "cases": cases} for name, cases in made.items()}


def test_an_entry_says_what_was_measured(entries):
    plain, block = entries
    assert plain["relus"] == plain["drelus"] == 256 and block["drelus"] == 64
    assert plain["seconds"]["total"]["count"] == 2
    assert set(plain["cpu_seconds"]) == set(plain["peak_rss_mb"]) == set(one_host.ROLES)
    assert plain["declared_bytes"]["online"] == plain["bytes"]["online"] == sum(plain["work"]["online"].values())
    assert plain["messages_online"] == plain["messages_declared"]
    assert plain["max_abs_error"] < 0.01 * plain["max_abs_plain"]
    assert plain["macs"] == 4 * 27 * 64 + 2 * 256 == plain["work"]["macs"]["dense"]
    assert plain["case"] != block["case"] and "published" in plain and "published" not in block


def test_kinds_of_layers_add_up(entries):
    kinds = measure.by_kind(entries[0]["layers"])
    assert kinds["conv"]["layers"] == 2
    assert sum(kind["bytes"] for kind in kinds.values()) == entries[0]["bytes"]["total"]


def test_a_ring_that_cannot_hold_the_network_is_a_result(monkeypatch):
    def refuse(subject, ring, patch=None):
        raise InputError("too large")

    monkeypatch.setattr(subjects, "assembled", refuse)
    entry = measure.measure(measure.Case(TINY), EFFORT_OF_TESTS)
    assert entry["refused"] == "too large"
    (sheet,) = sheets({"networks": {"cases": [entry]}})
    assert "too large" in sheet.markdown()


def test_tables_and_readme_come_from_the_results(sections, tmp_path):
    titles = [sheet.title for sheet in sheets(sections)]
    assert {"Whole inferences", "By link", "Convolutions on one core, packing included"} <= set(titles)
    text = readme.text(sections, [tmp_path / "growth_size.png"], tmp_path)
    assert "a tiny network" in text and "(growth_size.png)" in text and "python -m benchmarks" in text


def test_plots_are_written_as_png_and_svg(sections, tmp_path):
    written = plots.write(sections, tmp_path)
    assert {path.name for path in written} == {"growth_size.png"}
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".svg"}


def test_targets_are_judged(sections):
    (kernel,) = targets.verdicts(sections)
    assert kernel.least and kernel.reached == (kernel.measured >= 45)
    assert bool(kernel.doubt) == bool(warning(sections["kernels"]["machine"]))
    assert replace(kernel, least=False).reached == (kernel.measured <= 45)


def test_the_model_predicts_from_measured_constants(sections, entries):
    million = {"cpu_seconds": dict.fromkeys(one_host.ROLES, 0.02), "relus": 1_000_000}
    few = {"seconds": {"online": {"median": 0.01}}, "messages": 42}
    rows = {entry["network"]: entry["layers"] for entry in sections["kernels"]["cases"]}
    known = costmodel.constants(rows, sections["relus"]["cases"][0], million, few, cores=2)
    assert sum(known.relu_seconds.values()) == pytest.approx(60e-9)
    assert costmodel.predict(entries[0]["work"], known, None)["total"] > 0


def test_a_ratio_to_a_disturbed_reference_is_not_trusted(entries):
    slower = {"1": {"median": 0.1}, "2": {"median": 0.3}}
    entry = entries[0] | {"subject": "resnet50", "transport": "ipc", "plain_seconds": slower, "ratio": {"total": 0.1}}
    idle = describe() | {"load_average": [0.0, 0.0, 0.0]}
    first, *_ = targets.verdicts({"networks": {"machine": idle, "cases": [entry]}})
    assert first.reached and "two threads" in first.doubt
    assert "0.1x?" in sheets({"networks": {"machine": idle, "cases": [entry]}})[1].markdown()


def test_a_section_keeps_what_was_measured(tmp_path):
    machine = describe()
    first = store.Section(tmp_path, "networks", machine)
    first.add({"case": "one", "value": 1})
    first.add({"case": "two", "value": 2})
    resumed = store.Section(tmp_path, "networks", machine, resume=True)
    assert resumed.has("one")
    resumed.add({"case": "one", "value": 3})
    cases = store.load(tmp_path)["networks"]["cases"]
    assert {case["case"]: case["value"] for case in cases} == {"one": 3, "two": 2}
    assert not store.Section(tmp_path, "networks", machine | {"processor": "another"}, resume=True).has("one")


def test_earlier_results_stand_beside_those_of_now(sections, tmp_path):
    """Kept in a section of their own, so that the folder they came from is not needed any more."""
    old, now = tmp_path / "old", tmp_path / "now"
    for folder, seconds in ((old, 0.2), (now, 0.1)):
        for name in ("networks", "relus"):
            section = store.Section(folder, name, sections[name]["machine"] | {"commit": folder.name})
            for entry in sections[name]["cases"]:
                faster = {"seconds": {"total": store.spread([seconds])}, "ratio": {"total": 10 * seconds}} if name == "networks" else {}
                section.add(entry | faster)
    outcome = CliRunner().invoke(bench, ["--report", "--output", str(now), "--against", str(old)])
    assert outcome.exit_code == 0, outcome.output
    text = (now / "README.md").read_text()
    part = text[text.index("### Before and after") :].split("###")[1]
    row = next(line for line in part.splitlines() if "tiny" in line)
    assert "| old," in part and "200 ms (2.0x)" in row and row.index("200 ms") < row.index("100 ms (1.0x)")
    assert "ns a ReLU" in part and f"- {earlier.SECTION}" not in text
    (tmp_path / "none").mkdir()
    refused = CliRunner().invoke(bench, ["--report", "--output", str(now), "--against", str(tmp_path / "none")], standalone_mode=False)
    assert isinstance(refused.exception, InputError)


def test_a_file_without_results_is_named(tmp_path):
    (tmp_path / "odd.json").write_text(json.dumps([1]))
    with pytest.raises(InputError, match=r"odd\.json holds no benchmark results"):
        store.load(tmp_path)


def test_a_busy_machine_is_told():
    idle = describe() | {"cores": 4, "load_average": [0.1, 0.1, 0.1]}
    assert warning(idle) is None
    assert "not idle" in warning(idle | {"load_average": [3.0, 1.0, 1.0]})


def test_every_case_has_a_name_of_its_own():
    for long in EFFORT:
        names = [case.name for case in network_cases(long)]
        assert len(set(names)) == len(names)


def test_the_command_reports_without_measuring(sections, tmp_path):
    section = store.Section(tmp_path, "networks", sections["networks"]["machine"])
    for entry in sections["networks"]["cases"]:
        section.add(entry)
    outcome = CliRunner().invoke(bench, ["--report", "--output", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    assert "Whole inferences" in outcome.output and "Whole inferences" in (tmp_path / "README.md").read_text()


def test_the_command_runs_a_section(tmp_path, monkeypatch):
    monkeypatch.setitem(SECTIONS, "relus", lambda *arguments: iter([{"case": "x", "ring": 48} | passes.relu_passes(48, 512, 1)]))
    outcome = CliRunner().invoke(bench, ["--only", "relus", "--output", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    assert "Core time of a ReLU" in outcome.output


def test_cases_are_chosen_by_any_of_several_texts(tmp_path, monkeypatch):
    def measured(long, effort, progress, wanted, before):
        yield from ({"case": case, "ring": 48} for case in ("one", "two", "three") if wanted(case))

    monkeypatch.setitem(SECTIONS, "netem", measured)
    names = lambda: [entry["case"] for entry in store.load(tmp_path)["netem"]["cases"]]
    for arguments, expected in (
        (["--case", "one"], ["one"]),
        (["--case", "tw", "--case", "ree"], ["one", "two", "three"]),
        ([], ["one", "two", "three"]),
    ):
        command.measure(False, ("netem",), tmp_path, describe(), Display(), tuple(arguments[1::2]))
        assert names() == expected


@pytest.mark.parametrize("part", ["nope", "growth"])
def test_a_case_that_there_is_not_is_refused_before_anything_is_measured(tmp_path, part):
    outcome = CliRunner().invoke(
        bench, ["--case", "resnet50", "--case", part, "--output", str(tmp_path / "results")], standalone_mode=False
    )
    assert isinstance(outcome.exception, InputError) and f"--case {part}: no case of" in str(outcome.exception)
    assert not list(tmp_path.iterdir())


def test_every_section_names_its_cases_without_measuring_one():
    """One at a time, so that a section that measured or forgot to ask would be seen."""
    some = {"kernels": "ResNet-50/l48", "relus": "few/l32", "networks": "resnet50/l32/4x4", "growth": "batch16", "netem": "wan"}
    for name, part in some.items():
        command.check_parts(False, [name], (part,))


def test_waiting_for_an_idle_machine_ends(monkeypatch):
    loads, said = iter([9.0, 9.0]), []
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (next(loads, 0.0), 0, 0))
    monkeypatch.setattr(machine.time, "sleep", lambda seconds: None)
    machine.wait_until_idle(60, said.append)
    assert len(said) == 2 and "9.00" in said[0]
    machine.wait_until_idle(0, said.append)
    assert len(said) == 2


def test_a_markdown_table_has_one_rule():
    assert Sheet("t", ("a", "b"), [("x", "1")]).markdown().splitlines()[2:5] == ["| a | b |", "| --- | ---: |", "| x | 1 |"]


def test_networks_of_one_relu_layer_are_what_they_say():
    plan = single.network(*single.MILLION, 48).public.plan(1)
    assert plan.relus == 1_000_000
    assert single.network(*single.FEW, 32, layers=3).public.plan(1).cost.messages == 3 * 4 + 2
