"""`threepc inspect`: what a network's secure inference costs, from what its protocols declare; nothing is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from threepc.console import Display
from threepc.model.assemble import Settings, assemble_loaded
from threepc.model.load import load_model
from threepc.model.served import PublicModel
from threepc.plan.schedule import Plan
from threepc.protocol.cost import Cost
from threepc.protocol.steps import Step


@dataclass(frozen=True)
class Inspection:
    """A network's public model and plan for a batch, and where its spec came from."""

    model: PublicModel
    plan: Plan
    relu_spec: str | None

    def to_plain(self) -> dict[str, Any]:
        """As JSON-plain data, with the report's names where they are the same."""
        cost = self.plan.cost
        return self.model.facts(self.plan.batch, self.relu_spec) | {
            "reveal": self.model.reveal,
            "bytes": sizes(cost),
            "links": dict(sorted(_links(cost).items())),
            "messages_online": cost.messages,
            "layers": [layer(step) for step in self.plan.steps],
        }


def inspect(config: str, settings: Settings, batch: int, size: tuple[int, int] | None, display: Display) -> Inspection:
    """Load and import the network. Raises InputError for what cannot be run, naming the layer."""
    with display.stage("loading the model"):
        loaded = load_model(config, size=size)
    with display.stage("importing the network"):
        assembled = assemble_loaded(loaded, settings)
    return Inspection(assembled.public, assembled.public.plan(batch), assembled.spec_source)


def layer(step: Step) -> dict[str, Any]:
    """What one step costs."""
    entry = {"name": step.name, "kind": step.kind, "shape": list(step.result.shape[1:]), "drelus": step.drelus}
    return entry | {"bytes": sizes(step.cost), "messages": step.cost.messages}


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
