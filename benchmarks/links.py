"""Inferences over simulated links of hosts: what every link and party is busy with, what the client waits for, and what the bytes alone would take.

Hosts have one uplink and one downlink, which their peers share. The parties are traced in the run that is measured: with a few hundred messages
that costs nothing beside links of this kind.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import costmodel, subjects
from benchmarks.measure import TIMEOUT, Progress, Wanted, work_of
from benchmarks.store import Entry, spread
from benchmarks.subjects import SUBJECTS
from threepc.choices import AUTO, AUTO_ONLINE, NETWORKS, read_links
from threepc.errors import InputError
from threepc.model.assemble import Assembled, Settings, with_messages
from threepc.model.served import PublicModel, ServedModel
from threepc.party import one_host, tracing
from threepc.plan.messages import Links
from threepc.tasks.critical_path import critical_path, read_trace

MEASURED = ("resnet50", "resnet18_cifar", "mobilenet_v2")
RINGS = (48, 32)
PATCHES = (None, (4, 4))
PREPARED = "prepared"
VARIANTS = ("", "balanced", "auto", PREPARED)
"""Four messages a ReLU of whole layers, all dealt to the server; layers in pieces, the client dealt its shares of some; and two messages where that is
better, too; the online phase alone, dealt and prepared before, with the messages that suit it."""
SLOW_S = 6.0
"""An inference that takes longer is measured once; a shorter one three times, after one that is not counted."""


@dataclass(frozen=True)
class Setting:
    """A preset between any two parties, and the rates of the parties' hosts."""

    network: str
    links: str


SETTINGS = {
    "10 Gbit/s": Setting("lan10", "each=10G"),
    "1 Gbit/s": Setting("lan", "each=1G"),
    "352 Mbit/s, 40 ms": Setting("wan352", "each=352M"),
    "100 Mbit/s, 40 ms": Setting("wan", "each=100M"),
    "1 Gbit/s, provider 10": Setting("lan10", "provider=10G,server=1G,client=1G"),
    "352 Mbit/s, 40 ms, provider 1000": Setting("wan352", "provider=1G,server=352M,client=352M"),
}
"""Of the last two the provider's uplink is the wider one: there it may be of use to tell the client shares, too."""


def run(progress: Progress, wanted: Wanted, constants: Mapping[int, costmodel.Constants]) -> Iterator[Entry]:
    """An entry for each network, ring, spec and setting, and others for what the plan would choose where that is something else: see `VARIANTS`.

    constants: of the cost model, by ring, as far as they were measured.
    """
    for subject in map(SUBJECTS.__getitem__, MEASURED):
        for ring in RINGS:
            for patch in PATCHES:
                spec = "plain" if patch is None else f"{patch[0]}x{patch[1]}"
                for title, setting in SETTINGS.items():
                    for variant in VARIANTS:
                        case = f"{subject.name}/l{ring}/{spec}/{title}{variant and '/'}{variant}"
                        if not wanted(case):
                            continue
                        facts = {"case": case, "title": subject.title, "ring": ring, "patch": patch and list(patch), "links": title}
                        progress(case)
                        try:
                            model = subjects.assembled(subject, ring, patch)
                        except InputError as error:
                            yield facts | {"refused": str(error)}
                            break
                        if entry := measure(model, setting, variant, progress, constants.get(ring)):
                            yield facts | entry


def measure(
    model: Assembled, setting: Setting, variant: str, progress: Progress, constants: costmodel.Constants | None = None
) -> Entry | None:
    """One case; None where the variant is no other than the one before it."""
    public = before = model.public
    if variant:
        public = _suited(before, setting)
    if variant in ("auto", PREPARED):
        chosen = AUTO if variant == "auto" else AUTO_ONLINE
        settings = Settings(ring=public.precision.bits, relu_messages=chosen, network=setting.network, links=setting.links)
        public, before = _suited(with_messages(model.public, settings), setting), public
    if variant and variant != PREPARED and public == before:
        return None
    served, pixels = ServedModel(public, model.served.weights), subjects.images(model, 1)
    ahead = int(variant == PREPARED)
    parties = one_host.open_parties(
        served, "ipc", setting.network, progress, timeout=TIMEOUT, budget=_budget(served), traced=True, links=setting.links, ahead=ahead
    )
    assert isinstance(parties, one_host.ThreeProcesses)
    preset, hosts = NETWORKS[setting.network], read_links(setting.links)
    plan, records = public.plan(1), []
    arriving = Links(preset, hosts).busiest(plan.cost.offline)
    with parties:
        for count in range(4):
            if ahead:
                parties.prepare()
                time.sleep(arriving)
            began = time.perf_counter()
            records.append(parties.infer(pixels)[1])
            if not count and records[0].seconds["total"] > SLOW_S:
                break
    records = records[1:] or records
    counted = ("online",) if ahead else ("offline", "online")
    sizes = {link: sum(size for phase, (size, _) in phases.items() if phase in counted) for link, phases in records[-1].links.items()}
    busy = {what: seconds for what, seconds in Links(preset, hosts).busy(sizes).items() if seconds}
    delay = 0.0 if preset is None else preset.one_way_delay_s
    return {
        "prepared": bool(ahead),
        "told": len(public.to_client),
        "quick": len(public.quick),
        "late": len(public.late),
        "seconds": spread(record.seconds["total"] for record in records),
        "bytes": sizes,
        "busy": busy,
        "cpu_seconds": {role: spread(record.cpu_seconds[role] for record in records)["median"] for role in one_host.ROLES},
        "messages": plan.cost.messages,
        "path": path_of(parties.timelines, began),
        "least": max(*busy.values(), plan.cost.messages * delay),
        "predicted": None if ahead or constants is None else costmodel.predict(work_of(plan), constants, preset, hosts),
    }


def _suited(model: PublicModel, setting: Setting) -> PublicModel:
    return model.balanced(setting.network, setting.links).cut_for(setting.network, setting.links)


def _budget(served: ServedModel) -> int:
    """Room for all of an inference's offline phase: nobody waits for credit."""
    return max(served.public.plan(1).cost.offline.values())


def path_of(timelines: list[tracing.Timeline], began: float) -> dict[str, float]:
    """Seconds of what ended last, by party and what was done; of the run that began then, by time.perf_counter."""
    for timeline in timelines:
        timeline.spans = [span for span in timeline.spans if span.began >= began]
    with tempfile.TemporaryDirectory(prefix="threepc-") as folder:
        file = Path(folder) / "trace.json"
        tracing.write(file, timelines)
        sums: Counter[str] = Counter()
        for piece in critical_path(read_trace(file)):
            sums[f"{piece.party} {piece.what}"] += piece.ended - piece.began
    return {what: micros / 1e6 for what, micros in sums.most_common()}
