"""The three parties of a deployment.yaml, each in a process of its own on any host; no torch here."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable

from threepc.errors import InputError, RunError
from threepc.graph.outputs import reveal_text, revealed
from threepc.model.served import PublicModel, ServedModel
from threepc.party.client import ClientSession
from threepc.party.connector import ZmqConnector
from threepc.party.deployment import Deployment
from threepc.party.provider import ProviderParty
from threepc.party.queries import QueryCounts, state_file
from threepc.party.server import ServerParty
from threepc.party.session import Options, log, new_session, number_field, open_channel, shows_the_server_nothing
from threepc.party.tracing import Timeline
from threepc.party.weight_cache import HeldWeights, WeightCache
from threepc.transport.framing import PROTOCOL_VERSION
from threepc.transport.keys import KeyPair
from threepc.transport.meter import Meter


def open_client(
    deployment: Deployment,
    name: str = "client",
    threads: int = 1,
    tell: Callable[[str], None] = log.info,
    model: str = "",
    cache: bool = True,
    trace: Timeline | None = None,
    accept: Callable[[PublicModel], None] | None = None,
) -> ClientSession:
    """One session of `sessions_of`; `tell` hears for whom the client waits."""
    return sessions_of(deployment, name, threads, tell, model=model, cache=cache, trace=trace, accept=accept)(tell)


def sessions_of(  # noqa: PLR0913 - what a client may choose; most by name
    deployment: Deployment,
    name: str = "client",
    threads: int = 1,
    tell: Callable[[str], None] = log.info,
    *,
    model: str = "",
    cache: bool = True,
    trace: Timeline | None = None,
    accept: Callable[[PublicModel], None] | None = None,
    ahead: Iterable[int] = (),
    batch: int = 1,
) -> Callable[[Callable[[str], None]], ClientSession]:
    """Opens sessions of the client whose key files are called `name`; each time it is given what hears for whom the client waits.

    The sessions share the masked weights in memory and, where the deployment simulates a network, its links. model: which one they ask for, as
    `Offer.find` takes it. cache: keep the masked weights on disk for later, see `WeightCache`; tell: hears where that fails. trace: what the
    sessions note their work in. accept: as `Options` has it, in place of a comparison with deployment.yaml.
    ahead: how many inferences, of `batch` images, each session prepares, one number after the other; 0 where there is none left.

    Raises InputError for its keys; what it gives raises RunError when a party is missing or disagrees.
    """
    connector = connector_of(deployment, name, deployment.client_pair(name))
    options = _options(deployment, deployment.budgets.client, threads)
    kept = WeightCache(tell) if cache else None
    options = dataclasses.replace(options, model=model, weight_cache=kept, held=HeldWeights(), trace=trace, accept=accept or options.accept)
    numbers = itertools.chain(ahead, itertools.repeat(0))
    return lambda tell: ClientSession(connector, dataclasses.replace(options, tell=tell, ahead=next(numbers), batch=batch))


def open_server(deployment: Deployment, model: ServedModel | None, threads: int = 1, trace: Timeline | None = None) -> ServerParty:
    """A server that listens; without a model it has clients wait until it is given one.

    Raises InputError for its keys, for weights that do not fit the ring, for an address in use, and where queries cannot be counted.
    """
    connector = connector_of(deployment, "server")
    options = _options(deployment, max(deployment.budgets.client, deployment.budgets.provider), threads)
    queries = QueryCounts(
        state_file(deployment.path), deployment.queries
    )  # before it listens: what fails from then on leaves the address in use
    party = ServerParty(model, connector, dataclasses.replace(options, trace=trace))
    party.queries = queries
    party.authorise(deployment.authorised("server"), deployment.name_of)
    return party


def open_provider(
    deployment: Deployment, threads: int = 1, trace: Timeline | None = None, accept: Callable[[PublicModel], None] | None = None
) -> ProviderParty:
    """A provider that listens. accept: as `open_client` takes it. Raises InputError for its keys and for an address in use."""
    connector = connector_of(deployment, "provider")
    options = _options(deployment, deployment.budgets.provider, threads)
    party = ProviderParty(connector, dataclasses.replace(options, trace=trace, accept=accept or options.accept))
    party.authorise(deployment.authorised("provider"), deployment.name_of)
    return party


def ask_version(deployment: Deployment, name: str, role: str, timeout: float) -> int:
    """The protocol version of the server or the provider, asked with the key of the party `name`, within about `timeout` seconds.

    Raises InputError for its keys, RunError when nobody answers, when a key is not accepted, and for another version.
    """
    connector = dataclasses.replace(connector_of(deployment, name), timeout=timeout)
    own = "server" if name == "server" else "client"
    channel = open_channel(connector.connect(role), own, role, Options(timeout), Meter())
    try:
        channel.send_control("hello", {"version": PROTOCOL_VERSION, "role": own, "session": new_session().hex(), "purpose": "version"})
        return number_field(channel.receive_control("version"), "version")
    finally:
        channel.close()


def connector_of(deployment: Deployment, name: str, keys: KeyPair | None = None) -> ZmqConnector:
    """How the party `name` listens, at its own address if it has one, and reaches the others, at theirs."""
    parties = {"server": deployment.server, "provider": deployment.provider}
    addresses = {role: party.listen if role == name else party.address for role, party in parties.items()}
    authorised = deployment.authorised(name) if name in parties else frozenset()
    return ZmqConnector(addresses, keys or deployment.key_pair(name), deployment.listening, authorised, deployment.timeouts.connect)


def _options(deployment: Deployment, budget: int, threads: int) -> Options:
    links = deployment.links if deployment.network != "none" else ""  # without a simulated network they say what the real one is
    options = Options.simulating(deployment.network, deployment.timeouts.answer, budget, threads, links)
    accept, memory, idle = (lambda model: _agree(deployment, model)), deployment.budgets.memory, deployment.timeouts.idle
    return dataclasses.replace(options, accept=accept, memory=memory, idle=idle)


def _revealed(deployment: Deployment, model: PublicModel) -> str:
    """What this party expects to be revealed, in the words of models; as it stands where it does not suit the model."""
    try:
        return reveal_text(revealed(model.graph, deployment.reveal))
    except InputError:
        return deployment.reveal


def _agree(deployment: Deployment, model: PublicModel) -> None:
    """Raises RunError where a model is not what this party's deployment.yaml says, or shows the server anything."""
    shows_the_server_nothing(model)
    window = model.precision.window
    expected = {
        "ring": (deployment.ring, model.precision.bits),
        "frac_bits": (deployment.frac_bits, model.precision.fraction if deployment.frac_bits else None),
        "drelu_window": (deployment.drelu_window, window and tuple(window)),
        "reveal": (_revealed(deployment, model), model.reveal),
    }
    for key, (ours, theirs) in expected.items():
        if ours != theirs:
            raise RunError(f"the parties disagree on {key}: the server says {theirs}, {deployment.path} here says {ours}")
    told = model.balanced(deployment.network, deployment.links).to_client
    if told != model.to_client:
        counts = f"the client is dealt its shares of {len(told)} layers, by the server's of {len(model.to_client)}"
        raise RunError(f"the parties disagree on links: by those of {deployment.path} here {counts}")
