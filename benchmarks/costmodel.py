"""Predicted seconds of an inference from what its plan declares and a few measured constants, for any rate and delay of the links.

Offline, the provider and the client each do every convolution once and deal or prepare for the ReLUs; online, the server does every
convolution and takes turns with the client. Work on ReLUs, pools and truncations counts as that of so many plain ReLUs as have its
declared bytes. A link direction is a pipe of one rate, and so is what a host sends or receives, where its rate is given. Local operations (sums, averages) are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from benchmarks import kernels, passes
from benchmarks.store import Entry, Sections
from threepc.choices import HostRates, LinkPreset
from threepc.plan.messages import Links

NO_HOSTS: Mapping[str, HostRates] = MappingProxyType({})
FREE = LinkPreset(float("inf"), 0.0)


@dataclass(frozen=True)
class Constants:
    """Of one ring on one machine. rates: multiply-adds a second of dense and depthwise convolutions, one core.

    relu_seconds: core time of one plain ReLU by "role phase", sockets included; relu_bytes: its declared bytes by phase.
    message_seconds: what one online message costs by itself. cores: shared by the three parties.
    """

    rates: dict[str, float]
    relu_seconds: dict[str, float]
    relu_bytes: dict[str, float]
    message_seconds: float
    cores: int


def constants(
    layer_rows: dict[str, list[Entry]], relu: dict[str, Any], million: dict[str, Any], few: dict[str, Any], cores: int
) -> Constants:
    """From the kernels' rows by network, `passes.relu_passes`, and `single.measure` of a million ReLUs and of a few in many layers."""
    shares, totals = passes.sums(relu["passes"]), {}
    for key, nanoseconds in shares.items():
        role = key.partition(" ")[0]
        if role != "all":
            of_role = sum(value for other, value in shares.items() if other.startswith(role))
            totals[key] = million["cpu_seconds"][role] / million["relus"] * nanoseconds / of_role
    rates = {"dense": kernels.together(layer_rows["ResNet-50"]) * 1e9, "depthwise": kernels.together(layer_rows["MobileNetV2"], True) * 1e9}
    return Constants(rates, totals, relu["bytes"], few["seconds"]["online"]["median"] / few["messages"], cores)


def measured_constants(sections: Sections, ring: int, cores: int) -> Constants | None:
    """`constants` from the sections kernels and relus, None where these have not all that it takes."""
    known = {name: {entry["case"]: entry for entry in sections.get(name, {"cases": []})["cases"]} for name in ("kernels", "relus")}
    rows = {name: known["kernels"][case]["layers"] for name in kernels.NETWORKS if (case := f"{name}/l{ring}") in known["kernels"]}
    names = [f"passes/l{ring}", f"million/l{ring}/ipc", f"few/l{ring}"]
    if len(rows) < len(kernels.NETWORKS) or not all(name in known["relus"] for name in names):
        return None
    relu, million, few = (known["relus"][name] for name in names)
    return constants(rows, relu, million, few, cores)


def predict(
    work: dict[str, Any], constants: Constants, network: LinkPreset | None, hosts: Mapping[str, HostRates] = NO_HOSTS
) -> dict[str, float]:
    """Seconds "offline", "online" (separate phases) and "total" (overlapped). work: `measure.work_of`; hosts: rates of parties, as of `read_links`."""
    pipe = network or FREE
    linear = sum(work["macs"][kind] / rate for kind, rate in constants.rates.items())
    relus = {phase: sum(work[phase].values()) / constants.relu_bytes[phase] for phase in ("offline", "online")}
    compute = {key: relus[key.split()[1]] * seconds for key, seconds in constants.relu_seconds.items()}
    provider, client = linear + compute["provider offline"], linear + compute["client offline"]
    links_of = Links(network, hosts)
    computed = max(provider, client, (provider + client) / constants.cores)
    offline = max(computed, links_of.busiest(work["offline"])) + pipe.one_way_delay_s
    turns = linear + compute["server online"] + compute["client online"]
    sending = sum(links_of.busiest({link: size}) for link, size in work["online"].items())
    online = turns + sending + work["messages"] * (constants.message_seconds + pipe.one_way_delay_s)
    links = {link: work["offline"].get(link, 0) + work["online"].get(link, 0) for link in work["offline"] | work["online"]}
    total = max(online, (provider + client + turns) / constants.cores, links_of.busiest(links))
    return {"offline": offline, "online": online, "total": total}
