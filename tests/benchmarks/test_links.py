"""The section of hosts' links: its cases and its tables; nothing is measured."""

from benchmarks import links, links_sheet
from threepc.choices import NETWORKS, read_links
from threepc.party.tracing import LAYER, Span, Timeline

ENTRY = {
    "case": "x",
    "title": "a network",
    "ring": 48,
    "patch": [4, 4],
    "links": "1 Gbit/s",
    "told": 3,
    "quick": 2,
    "seconds": {"median": 2.0, "min": 1.9, "max": 2.1, "count": 3},
    "bytes": {"provider->server": 10_000_000, "provider->client": 2_000_000},
    "busy": {"server down": 0.5, "provider up": 1.25},
    "cpu_seconds": {"provider": 0.1, "server": 0.2, "client": 0.3},
    "messages": 20,
    "path": {"server wait": 1.0, "client on its way": 0.6, "server compute": 0.3, "client compute": 0.1},
    "least": 1.25,
    "predicted": {"total": 1.5},
}


def test_every_case_has_a_name_of_its_own_and_none_is_measured_unasked():
    names = []
    assert list(links.run(lambda _: None, lambda case: names.append(case) or False, {})) == []
    assert len(set(names)) == len(names) == len(links.MEASURED) * len(links.RINGS) * 2 * len(links.SETTINGS) * len(links.VARIANTS)
    for setting in links.SETTINGS.values():
        assert setting.network in NETWORKS and read_links(setting.links)


def test_tables():
    times, sizes = links_sheet.sheets([ENTRY, ENTRY | {"told": 0, "quick": 0, "predicted": None, "patch": None}, {"refused": "too large"}])
    assert times.rows[0][3:8] == (
        "1 Gbit/s, 3 layers dealt to the client, 2 layers of two messages",
        *times.rows[0][4:5],
        "1.50 s",
        "0.75",
        "1.25 s",
    )
    assert times.rows[0][8:] == ("provider up 1.25 s", "server wait 1.00 s, client on its way 600.0 ms, server compute 300.0 ms")
    assert times.rows[1][2:4] == ("every ReLU", "1 Gbit/s") and times.rows[1][5:7] == ("", "")
    assert sizes.rows[0][4:] == ("10.0", "2.0", "0.0", "0.0", "0.10 / 0.20 / 0.30")


def test_a_path_is_that_of_the_last_run():
    timeline = Timeline("client")
    for began in (1.0, 5.0):
        timeline.spans.append(Span("online", LAYER, "relu", began, began + 2.0, {}))
    assert links.path_of([timeline], 4.0) == {"client compute": 2.0}
