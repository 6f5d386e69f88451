"""Results as tables, for a terminal and for Markdown."""

from __future__ import annotations

from benchmarks import earlier, kernels, links_sheet, passes, published
from benchmarks.measure import by_kind
from benchmarks.sheet import Sheet, in_seconds, megabytes, spread_of
from benchmarks.store import Entry, Sections
from benchmarks.targets import Verdict, baseline, disturbed, verdicts

SLOWEST = 5
AT_THE_SERVER = "seconds: at the server, phases apart, waiting for the client included."
LINKS = ("client->server", "server->client", "provider->server")


def sheets(sections: Sections) -> list[Sheet]:
    """All tables that the results allow."""
    cases = {name: section["cases"] for name, section in sections.items()}
    made = [_targets(sections), _earlier(sections)]
    if "networks" in cases:
        entries = [entry for entry in cases["networks"] if "refused" not in entry]
        made += [_networks(cases["networks"]), _resources(entries, sections), _links(entries)]
        made += [_kinds(entries), _slowest(entries), _published(entries)]
    if "relus" in cases:
        made += [_relu_passes(cases["relus"]), _relu_layers(cases["relus"])]
    if "kernels" in cases:
        made += [_kernels(cases["kernels"]), *_layers(cases["kernels"])]
    if "growth" in cases:
        made += [_growth(cases["growth"], axis, title) for axis, title in AXES.items()]
    if "model" in cases:
        made.append(_model(cases["model"]))
    if "links" in cases:
        made += links_sheet.sheets(cases["links"])
    if "netem" in cases:
        made.append(_netem(cases["netem"]))
    return [sheet for sheet in made if sheet.rows]


AXES = {
    "size": "Growth with the image's side: ResNet-18 (ImageNet), l = 48",
    "batch": "Growth with the batch: ResNet-18 (CIFAR), l = 48",
    "relus": "Growth with the share of decisions: ResNet-18 (ImageNet), l = 48, one patch size everywhere",
    "threads": "Growth with threads a party: ResNet-50, l = 48",
}


def _spec(entry: Entry) -> str:
    return "every ReLU" if entry["patch"] is None else f"patches {entry['patch'][0]}x{entry['patch'][1]}"


def _setting(entry: Entry) -> str:
    return entry["transport"] if entry["network"] == "none" else f"{entry['transport']}, {entry['network']}"


def _names(entry: Entry) -> tuple[str, ...]:
    batch = f", batch {entry['batch']}" if entry["batch"] > 1 else ""
    return f"{entry['title']}{batch}", str(entry["ring"]), _spec(entry), _setting(entry)


def _targets(sections: Sections) -> Sheet:
    rows = [
        (v.what, f"{'at least' if v.least else 'at most'} {v.target:g} {v.unit}".strip(), f"{v.measured:.3g} {v.unit}".strip(), _judged(v))
        for v in verdicts(sections)
    ]
    note = "x: times PyTorch in the clear on two threads, in the same run; CURVE over TCP: times ipc."
    return Sheet("Targets", ("what", "target", "measured", "reached"), rows, (note,))


def _earlier(sections: Sections) -> Sheet:
    commits = sections.get(earlier.SECTION, {"cases": []})["cases"]
    now = earlier.figures(sections)
    shared = [name for name in now if any(name in commit["figures"] for commit in commits)]
    rows = [
        (name, *(earlier.in_words(commit["figures"].get(name, {})) for commit in commits), earlier.in_words(now[name])) for name in shared
    ]
    columns = "what", *(f"{commit['case']}, {commit['started'][:16]}" for commit in commits), "now"
    note = "Each with the plaintext of its own run. online: phases apart. CPU: all parties together, of one inference."
    return Sheet("Before and after", columns, rows, (note,))


def _judged(verdict: Verdict) -> str:
    if verdict.doubt:
        return f"not judged: {verdict.doubt}"
    return "yes" if verdict.reached else f"no: {abs(verdict.measured / verdict.target - 1):.1%} {'below' if verdict.least else 'above'}"


def _ratio(entry: Entry, phase: str) -> str:
    """Marked where the reference was disturbed."""
    return f"{entry['ratio'][phase]:.1f}x{'?' * bool(disturbed(entry))}" if phase in entry["ratio"] else ""


def _networks(entries: list[Entry]) -> Sheet:
    rows = []
    for entry in entries:
        if "refused" in entry:
            rows.append((*_names(entry), "refused", entry["refused"], *[""] * 6))
            continue
        seconds, plain = entry["seconds"], entry["plain_seconds"]
        rows.append(
            (
                *_names(entry),
                spread_of(seconds["total"]),
                _ratio(entry, "total"),
                in_seconds(seconds.get("offline", {}).get("median")),
                in_seconds(seconds.get("online", {}).get("median")),
                _ratio(entry, "online"),
                f"{in_seconds(plain['1']['median'])} / {in_seconds(plain['2']['median'])}",
                f"{entry['max_abs_error'] / entry['max_abs_plain']:.1e}",
                f"{entry['plain_sensitivity']:.1e}",
            )
        )
    columns = (
        "network",
        "l",
        "spec",
        "links",
        "total (least to most)",
        "to plain",
        "offline",
        "online",
        "online to plain",
        "plain 1 / 2 threads",
        "error",
        "PyTorch's own",
    )
    notes = (
        "total: offline and online phase overlapped, median; offline, online: one after the other. to plain: times PyTorch on two threads.",
        "A ratio with ? has a reference that cannot be right: PyTorch was slower on two threads than on one, so other programs ran.",
        (
            "error: largest difference to PyTorch's outputs, relative to the largest of these. PyTorch's own: how far its outputs move when "
            "every pixel does by one unit of the fixed-point encoding; networks of random weights with block ReLUs are not continuous."
        ),
    )
    return Sheet("Whole inferences", columns, rows, notes, text=4)


def _resources(entries: list[Entry], sections: Sections) -> Sheet:
    rows = []
    for entry in entries:
        base, peak = baseline(sections, entry["ring"]) or {}, entry["peak_rss_mb"]
        memory = " / ".join(f"{peak[role] - base.get(role, 0):.0f}" for role in ("client", "server", "provider"))
        busy = " / ".join(f"{entry['cpu_seconds'][role]:.2f}" for role in ("client", "server", "provider"))
        size = entry["bytes"]
        rows.append(
            (
                *_names(entry),
                f"{entry['relus']:,}",
                f"{entry['drelus']:,}",
                f"{entry['macs'] / 1e9:.2f}",
                megabytes(size["offline"]),
                megabytes(size["online"]),
                megabytes(size["setup"]),
                str(entry["messages_online"]),
                busy,
                memory,
            )
        )
    columns = (
        "network",
        "l",
        "spec",
        "links",
        "ReLUs",
        "decisions",
        "GMAC",
        "MB offline",
        "MB online",
        "MB setup, once",
        "online messages",
        "CPU s, client / server / provider",
        "peak MB, client / server / provider",
    )
    known = all(baseline(sections, entry["ring"]) for entry in entries)
    note = f"peak MB: {'above what interpreter, libraries and kernels take' if known else 'interpreter, libraries and kernels included'}."
    return Sheet("Bytes, processor time and memory of an inference", columns, rows, (note,), text=4)


def _links(entries: list[Entry]) -> Sheet:
    rows = []
    for entry in entries:
        if _is_unhindered(entry):
            for link in LINKS:
                cells = [entry["links"].get(link, {}).get(phase, {"bytes": 0, "messages": 0}) for phase in ("offline", "online")]
                shown = [text for cell in cells for text in (megabytes(cell["bytes"]), str(cell["messages"]))]
                rows.append((*_names(entry)[:3], link.replace("->", " to "), *shown))
    return Sheet("By link", ("network", "l", "spec", "link", "MB offline", "messages", "MB online", "messages"), rows, text=4)


def _kinds(entries: list[Entry]) -> Sheet:
    rows = []
    for entry in entries:
        if _is_unhindered(entry):
            for kind, sums in by_kind(entry["layers"]).items():
                cells = str(sums["layers"]), in_seconds(sums["seconds"]), megabytes(sums["bytes"]), str(sums["messages"])
                rows.append((*_names(entry)[:3], kind, *cells))
    notes = (f"{AT_THE_SERVER} Every single layer is in networks.json.",)
    columns = ("network", "l", "spec", "kind", "layers", "seconds", "MB", "messages online")
    return Sheet("By kind of layer, online", columns, rows, notes, text=4)


def _slowest(entries: list[Entry]) -> Sheet:
    rows = []
    for entry in entries:
        if _is_unhindered(entry):
            whole = sum(layer["seconds"] for layer in entry["layers"])
            for layer in sorted(entry["layers"], key=lambda layer: -layer["seconds"])[:SLOWEST]:
                cells = in_seconds(layer["seconds"]), f"{layer['seconds'] / whole:.0%}", megabytes(layer["bytes"])
                rows.append((*_names(entry)[:3], layer["name"], layer["kind"], *cells))
    columns = ("network", "l", "spec", "layer", "kind", "seconds", "share", "MB")
    return Sheet("Slowest layers, online", columns, rows, (AT_THE_SERVER,), text=5)


def _is_unhindered(entry: Entry) -> bool:
    """Not slowed down by a simulated network or by encryption."""
    return bool(entry["network"] == "none" and entry["transport"] != "tcp")


def _published(entries: list[Entry]) -> Sheet:
    rows, seen = [], set()
    for entry in entries:
        key = entry["title"], entry["batch"], entry["ring"]
        if "published" not in entry or key in seen:
            continue
        seen.add(key)
        ours = entry["bytes"]["total"]
        theirs = [entry["published"][system.name]["total"] for system in published.SYSTEMS]
        cells = (text for size in theirs for text in (megabytes(size), f"{size / ours:.1f}x"))
        rows.append((*_names(entry)[:2], megabytes(ours), *cells))
    columns = ("network", "our l", "ours, MB", *(text for system in published.SYSTEMS for text in (f"{system.name}, MB", "to ours")))
    formulas = [
        f"{s.name}, l = {published.WORD_BITS}, log p = {published.PRIME_BITS} (p = 67, sent as a byte): "
        f"a ReLU {s.comparison} l log p + {s.relu} l bits = {s.relu_bytes()} bytes; "
        f"the largest of n (n-1)({s.comparison} l log p + {s.maximum} l) bits; a convolution "
        f"(2 {'unfolded image' if s.unfolded else 'image'} + 2 weights + output) l bits; {s.rounds}."
        for s in published.SYSTEMS
    ]
    sources = "SecureNN: Wagh et al., PoPETs 2019. Porthos: Kumar et al., CrypTFlow, IEEE S&P 2020, which reports 6.9 GB for ResNet-50."
    return Sheet("What SecureNN and Porthos would send, by their published formulas", columns, rows, (*formulas, sources))


def _relu_passes(entries: list[Entry]) -> Sheet:
    rows = []
    for entry in entries:
        if "passes" in entry:
            rows += [(str(entry["ring"]), r["role"], r["phase"], r["pass"], f"{r['nanoseconds']:.2f}") for r in entry["passes"]]
            size = entry["bytes"]
            sent = f"{size['offline']:.1f} + {size['online']:.1f} bytes"
            rows.append((str(entry["ring"]), "all", "", sent, f"{passes.sums(entry['passes'])['all']:.1f}"))
    return Sheet("Core time of a ReLU with truncation, ns", ("l", "role", "phase", "pass", "ns"), rows, text=4)


def _relu_layers(entries: list[Entry]) -> Sheet:
    rows = []
    for e in entries:
        if "seconds" in e:
            phases = [in_seconds(e["seconds"][phase]["median"]) for phase in ("offline", "online")]
            sizes = [megabytes(e["bytes"][phase]) for phase in ("offline", "online")]
            rows.append(
                (
                    f"{e['relus']:,} in {e['layers']} layer{'s' * (e['layers'] > 1)}",
                    str(e["ring"]),
                    e["transport"],
                    spread_of(e["seconds"]["total"]),
                    *phases,
                    *sizes,
                    str(e["messages"]),
                )
            )
    columns = ("ReLUs", "l", "links", "total (least to most)", "offline", "online", "MB offline", "MB online", "messages")
    return Sheet("Layers of ReLUs over three processes, truncation included", columns, rows, text=3)


def _kernels(entries: list[Entry]) -> Sheet:
    rows = []
    for e in entries:
        if "layers" in e:
            depthwise = any(row["depthwise"] for row in e["layers"])
            rows.append(
                (
                    e["network"],
                    str(e["ring"]),
                    e["kernels"],
                    f"{kernels.together(e['layers']):.1f}",
                    f"{kernels.together(e['layers'], True):.1f}" if depthwise else "",
                )
            )
    speeds = [e["gigabytes_per_second"] for e in entries if "gigabytes_per_second" in e]
    streams = [f"Keyed streams (AES-128-CTR), one core: {speed:.1f} GB/s." for speed in speeds]
    columns = ("convolutions of", "l", "kernels", "GMAC/s, all layers", "GMAC/s, depthwise")
    return Sheet("Convolutions on one core, packing included", columns, rows, tuple(streams), text=3)


def _layers(entries: list[Entry]) -> list[Sheet]:
    made = []
    for network in kernels.NETWORKS:
        rates = {e["ring"]: e["layers"] for e in entries if e.get("network") == network}
        if rates:
            rows = [
                (layers[0]["layer"], str(layers[0]["times"]), *(f"{row['gmac_per_second']:.1f}" for row in layers))
                for layers in zip(*rates.values(), strict=True)
            ]
            made.append(Sheet(f"Layers of {network}, GMAC/s on one core", ("layer", "times", *(f"l = {ring}" for ring in rates)), rows))
    return made


def _growth(entries: list[Entry], axis: str, title: str) -> Sheet:
    label = {"size": "side", "batch": "batch", "relus": "% of decisions", "threads": "threads"}[axis]
    rows = []
    for e in entries:
        if e["axis"] == axis and "refused" not in e:
            apart = [in_seconds(e["seconds"].get(phase, {}).get("median")) for phase in ("offline", "online")]
            total, memory = in_seconds(e["seconds"]["total"]["median"]), f"{max(e['peak_rss_mb'].values()):.0f}"
            rows.append((f"{e['x']:.3g}", total, *apart, _ratio(e, "total"), megabytes(e["bytes"]["total"]), memory))
    return Sheet(title, (label, "total", "offline", "online", "to plain", "MB", "peak MB of a party"), rows, text=0)


def _model(entries: list[Entry]) -> Sheet:
    rows = []
    for e in entries:
        cells = []
        for phase in ("total", "offline", "online"):
            if phase in e["measured"]:
                cells += [
                    in_seconds(e["predicted"][phase]),
                    in_seconds(e["measured"][phase]),
                    f"{e['predicted'][phase] / e['measured'][phase]:.2f}",
                ]
            else:
                cells += [in_seconds(e["predicted"][phase]), "", ""]
        names = _names(e | {"transport": "ipc"})
        rows.append((*names[:3], e["network"], *cells))
    phases = (text for phase in ("total", "offline", "online") for text in (f"{phase}, model", "measured", "ratio"))
    columns = ("network", "l", "spec", "links", *phases)
    return Sheet("Cost model against measurement", columns, rows, text=4)


def _netem(entries: list[Entry]) -> Sheet:
    rows, notes = [], []
    for e in entries:
        if "unavailable" in e:
            notes.append(f"{e['case']}: {e['unavailable']}")
        if "real" in e:
            rows.append(
                (
                    e["case"],
                    e["how"],
                    spread_of(e["unshaped"]),
                    spread_of(e["simulated"]),
                    spread_of(e["real"]),
                    f"{e['simulated']['median'] / e['real']['median']:.2f}",
                )
            )
    rows = rows or [("none", "", "", "", "", "")] * bool(notes)
    columns = ("links", "shaped by", "not shaped", "simulated", "real", "simulated to real")
    title = "Simulated networks against the kernel's shaping, three parties in network namespaces over CURVE"
    return Sheet(title, columns, rows, tuple(notes), text=2)
