"""`threepc inspect`: what a network's secure inference costs, from what its protocols declare; nothing is run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threepc.console import Display
from threepc.model.assemble import Settings, assemble_loaded, doubt, ranges_of
from threepc.model.load import load_model
from threepc.model.served import PublicModel
from threepc.plan.error import Expected
from threepc.plan.headroom import room
from threepc.plan.schedule import Plan
from threepc.protocol.cost import Cost
from threepc.protocol.steps import LookupStep, Step


@dataclass(frozen=True)
class Inspection:
    """A network's public model and plan for a batch, where its spec came from, and the room of its layers, by step.

    rooms: a layer's largest value and the bits between it and what the layer holds, measured with `ranges_of`; margin: bits asked for.
    seconds: of the links alone, of an inference that is dealt meanwhile and of the online phase, where it is said how fast links are, else None.
    expected: the error of results on some of these images; doubt: a warning, or nothing. weights: where they come from; random_weights: there
    was no checkpoint, so one may lead to other bits that layers compare, and to other bytes.
    """

    model: PublicModel
    plan: Plan
    relu_spec: str | None
    rooms: dict[str, tuple[float, float]]
    margin: int
    ranges_of: str
    seconds: tuple[float, float] | None
    expected: Expected
    doubt: str
    weights: str
    random_weights: bool

    def to_plain(self) -> dict[str, Any]:
        """As JSON-plain data, with the report's names where they are the same."""
        cost = self.plan.cost
        return self.model.facts(self.plan.batch, self.relu_spec) | {
            "weights": self.weights,
            "reveal": self.model.reveal,
            "bytes": sizes(cost),
            "links": dict(sorted(_links(cost).items())),
            "messages_online": cost.messages,
            "layers_of_messages": {"2": list(self.model.quick), "6": list(self.model.late)},
            "link_seconds": self.seconds and dict(zip(("total", "online"), self.seconds, strict=True)),
            "margin_bits": self.margin,
            "ranges_of": self.ranges_of,
            "expected_error": self.expected.error,
            "expected_changed": self.expected.changed,
            "expected_refused": self.expected.is_refused,
            "layers": [layer(step) | self._room(step) for step in self.plan.steps],
        }

    def _room(self, step: Step) -> dict[str, float | None]:
        """Its largest value and its room in bits, None where nothing bounds it."""
        largest, bits = self.rooms.get(step.name, (None, None))
        return {"largest": largest, "room_bits": bits if bits is not None and math.isfinite(bits) else None}


def inspect(
    config: str, checkpoint: Path | None, settings: Settings, batch: int, size: tuple[int, int] | None, display: Display
) -> Inspection:
    """Load and import the network. Raises InputError for what cannot be run, naming the layer."""
    with display.stage("loading the model"):
        loaded = load_model(config, checkpoint, size=size)
    with display.stage("importing the network") as tell:
        assembled = assemble_loaded(loaded, settings, tell)
    model = assembled.public
    rooms, plan = room(model.plan(1), assembled.ranges), model.plan(batch)
    costs, links = [step.cost for step in plan.steps], settings.stated_links
    seconds = (links.finish(costs), sum(map(links.online_seconds, costs))) if settings.network != "none" or settings.links else None
    return Inspection(
        model,
        plan,
        assembled.spec_source,
        rooms,
        settings.margin,
        ranges_of(settings),
        seconds,
        assembled.expected,
        doubt(assembled),
        loaded.weights_source,
        loaded.random_weights,
    )


def layer(step: Step) -> dict[str, Any]:
    """What one step costs."""
    entry = {"name": step.name, "kind": step.kind, "shape": list(step.result.shape[1:]), "drelus": step.drelus}
    error = {"error": step.error} if isinstance(step, LookupStep) else {}
    return entry | {"bytes": sizes(step.cost), "messages": step.cost.messages} | error


def sizes(cost: Cost) -> dict[str, int]:
    """Bytes over all links by phase; the total is without the setup, as in the report."""
    by_phase = {phase: cost.total(phase) for phase in ("setup", "offline", "online")}
    return by_phase | {"total": by_phase["offline"] + by_phase["online"]}


def _links(cost: Cost) -> dict[str, dict[str, int]]:
    links: dict[str, dict[str, int]] = {}
    for phase in ("setup", "offline", "online"):
        for link, size in getattr(cost, phase).items():
            links.setdefault(link, {})[phase] = size
    return links
