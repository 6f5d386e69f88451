"""Who is told its share of a layer's planes, the server or the client: chosen so that no party's link waits for another's.

The provider's messages take most of the bytes, and by default all go to the server. A layer's planes may go to the client instead, which the
protocol allows for each layer by itself (protocol/drelu.py). The bytes stay; they are spread over two hosts' downlinks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from threepc.plan.messages import Links
from threepc.plan.schedule import Plan

WORTH = 0.99
"""The client is told nothing unless the busiest link then needs less than this part of its time."""

_CLIENT, _SERVER = "provider->client", "provider->server"


def choose(usual: Plan, make: Callable[[Sequence[str]], Plan], layers: Sequence[str], links: Links) -> tuple[str, ...]:
    """Those of `layers` whose planes are to go to the client; () where it would not help. usual: the plan in which none do; make: one in which some do.

    Layers are taken in order, each for the host that is less busy with all before it, so that both are busy to the same degree at any time.
    """
    so_far: Counter[str] = Counter()
    chosen: dict[str, bool] = {}
    for step, told in zip(usual.steps, make(layers).steps, strict=True):
        so_far.update(step.cost.offline)
        so_far.update(step.cost.online)
        if planes := told.cost.offline.get(_CLIENT, 0):
            moved = so_far + Counter({_CLIENT: planes})
            moved[_SERVER] -= planes
            name = step.name if step.name in layers else step.name.rpartition("/")[0]
            if chosen.setdefault(name, links.busiest(moved) < links.busiest(so_far)):
                so_far = moved
    names = tuple(name for name, is_chosen in chosen.items() if is_chosen)
    all_bytes = Counter(usual.cost.offline) + Counter(usual.cost.online)
    return names if links.busiest(so_far) < WORTH * links.busiest(all_bytes) else ()
