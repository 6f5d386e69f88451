"""What `threepc inspect` prints."""

from __future__ import annotations

import json

from threepc.console import megabytes, new_table, print_table, say
from threepc.plan.precision import span
from threepc.tasks.inspect import Inspection


def show(inspection: Inspection) -> None:
    """A row for each step that costs something, the totals, and what the network is."""
    plain = inspection.to_plain()
    right = ("DReLUs", "offline", "online", "msgs", "largest", "room")
    table = new_table("layer", "kind", "output", *right, right=right)
    for entry in plain["layers"]:
        name = entry["name"]
        cells = [f"{entry['drelus']:,}" if entry["drelus"] else ""]
        cells += [megabytes(entry["bytes"][phase]) if entry["bytes"][phase] else "" for phase in ("offline", "online")]
        cells += [str(entry["messages"] or "")]
        cells += ["" if entry[key] is None else f"{entry[key]:{form}}" for key, form in (("largest", ".3g"), ("room_bits", ".1f"))]
        table.add_row(name, entry["kind"], "x".join(map(str, entry["shape"])), *cells)
    sums = plain["bytes"]
    table.add_row(
        "all", "", "", f"{plain['drelus']:,}", megabytes(sums["offline"]), megabytes(sums["online"]), str(plain["messages_online"]), "", ""
    )
    print_table(table)
    say("offline, online: megabytes over all links; msgs: one-way messages online")
    say(f"largest: of the values, with {plain['ranges_of']}")
    say(f"room: bits from there to what the layer holds; the scales leave {plain['margin_bits']} (--margin)")
    expected = inspection.expected
    say(f"error to expect: {100 * expected.error:.2g} % of the largest result, on {expected.images} of these images")
    if inspection.doubt:
        say(inspection.doubt)
    if expected.is_refused:
        say("run and server refuse this, unless it is allowed (--allow-error)")
    errors = {entry["name"].removesuffix("/curve"): entry["error"] for entry in plain["layers"] if "error" in entry}
    if errors:
        worst = max(errors, key=lambda name: errors[name])
        say(f"tables of {len(errors)} smooth activations: largest error {errors[worst]:.2g}, of {worst} (--json has each layer's)")
    say()
    say(f"{plain['model']}, {plain['images']} image(s) at once; relu spec: {plain['relu_spec'] or 'none, every ReLU is plain'}")
    if sliding := inspection.model.card.sliding:
        window = inspection.model.card.preprocessing.size
        say(
            f"windows of {window[0]}x{window[1]} pixels slide over an image, at most {sliding.most(window)}, each of which is an image here"
        )
    say(plain["weights"])
    if inspection.random_weights:
        say("weights decide how many bits layers compare: a checkpoint may change bytes")
    say(
        f"{plain['ring_bits']}-bit ring, {plain['frac_bits']} fractional bits, {inspection.model.precision.signs}; "
        f"reveals {plain['reveal']}"
    )
    if plain["weight_frac_bits"]:
        bits = plain["weight_frac_bits"].values()
        say(f"fractional bits of weights by layer: {span(bits)} (--json lists them)")
    say(f"{plain['relus']:,} ReLUs, {plain['drelus']:,} decisions (DReLUs); max pooling apart")
    say(
        f"{megabytes(sums['total'])} MB: {megabytes(sums['offline'])} offline, {megabytes(sums['online'])} online; "
        f"{megabytes(sums['setup'])} MB once, at setup"
    )
    varied = [f"{len(names)} layers take {count} messages a ReLU" for count, names in plain["layers_of_messages"].items() if names]
    say("; ".join([f"{plain['messages_online']} one-way messages on the online critical path", *varied]))
    if inspection.seconds:
        whole, online = inspection.seconds
        say(f"{whole:.2f} s of these links' time while it is dealt, {online:.2f} s where it was dealt before; processors come on top")
    say(f"fingerprint {plain['fingerprint']}")


def show_json(inspection: Inspection) -> None:
    """The same for programs."""
    say(json.dumps(inspection.to_plain(), indent=1, allow_nan=False))
