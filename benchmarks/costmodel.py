"""Predicted seconds of an inference from what its plan declares and a few measured constants, for any rate and delay of the links.

Offline, the provider and the client each do every convolution once and deal or prepare for the ReLUs; online, the server does every
convolution and takes turns with the client. Work on ReLUs, pools and truncations counts as that of so many plain ReLUs as have its
declared bytes. A link direction is a pipe of one rate. Local operations (sums, averages) are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks import kernels, passes
from benchmarks.store import Entry
from threepc.choices import LinkPreset

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


def predict(work: dict[str, Any], constants: Constants, network: LinkPreset | None) -> dict[str, float]:
    """Seconds "offline", "online" (separate phases) and "total" (overlapped). work: `measure`'s entry of that name."""
    pipe = network or FREE
    linear = sum(work["macs"][kind] / rate for kind, rate in constants.rates.items())
    relus = {phase: sum(work[phase].values()) / constants.relu_bytes[phase] for phase in ("offline", "online")}
    compute = {key: relus[key.split()[1]] * seconds for key, seconds in constants.relu_seconds.items()}
    provider, client = linear + compute["provider offline"], linear + compute["client offline"]
    sending = lambda size: 8 * size / pipe.rate_bits_per_s
    offline = max(provider, client, (provider + client) / constants.cores, *map(sending, work["offline"].values())) + pipe.one_way_delay_s
    turns = linear + compute["server online"] + compute["client online"]
    online = turns + sum(map(sending, work["online"].values())) + work["messages"] * (constants.message_seconds + pipe.one_way_delay_s)
    links = {link: work["offline"].get(link, 0) + work["online"].get(link, 0) for link in work["offline"] | work["online"]}
    total = max(online, (provider + client + turns) / constants.cores, *map(sending, links.values()))
    return {"offline": offline, "online": online, "total": total}
