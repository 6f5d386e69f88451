"""The models that a server offers: side by side, under their names and fingerprints, added and withdrawn while sessions run."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable

import numpy as np

from threepc.errors import InputError, RunError
from threepc.kernels.convolution import PackedWeight
from threepc.model.served import PublicModel, ServedModel
from threepc.party.weight_cache import digest_of
from threepc.prf import Keystream, new_key


class OfferedModel:
    """A model as its server holds it: weights encoded, masked and packed once.

    key: of the weights' mask, made here; it goes to the provider with each session. By op: the weights as kernels take them, the biases, and
    the masked weights for clients, in the order of the steps. digest: of these, by which a client knows them again.
    """

    def __init__(self, model: ServedModel) -> None:
        """Raises InputError, naming the layer, for weights that do not fit the ring."""
        self.public, self.key = model.public, new_key()
        self.side = model.side
        self.weights: dict[int, PackedWeight] = {}
        self.biases: dict[int, np.ndarray] = {}
        self.masked: dict[int, np.ndarray] = {}
        mask = Keystream(self.key)
        mask.begin_attempt(0)
        for step, words, biases in model.public.plan(1).encoded_weights(model.weights):
            self.biases[step.op] = biases
            if words is None:
                continue
            self.masked[step.op] = step.protocol.mask_weights(mask, words)
            self.weights[step.op] = step.protocol.server_weights(words)
        mask.erase()
        self.digest = digest_of(self.masked.values())


class Offer:
    """What new sessions may choose from, in order. A session keeps the model that it began with. Safe to use from several threads."""

    def __init__(self) -> None:
        self._models: list[OfferedModel] = []
        self._lock = threading.Lock()

    def set(self, models: Iterable[OfferedModel]) -> None:
        """Offer these from now on. Raises InputError where two of them have one name and one fingerprint; then nothing changes."""
        models = list(models)
        for called, count in Counter(model.public.called for model in models).items():
            if count > 1:
                raise InputError(f"{count} models are called {called}: give each a name of its own")
        with self._lock:
            self._models = models

    def find(self, wanted: str = "") -> OfferedModel:
        """The first model that is meant by NAME, by NAME@ and the beginning of a fingerprint, or by nothing. Raises RunError where none is."""
        with self._lock:
            for model in self._models:
                if is_meant(model.public, wanted):
                    return model
            names = ", ".join(model.public.called for model in self._models) or "none at the moment"
        raise RunError(f"this server has no model {wanted!r:.80}: it has {names}")


def is_meant(model: PublicModel, wanted: str) -> bool:
    """Whether NAME, or NAME@ and the beginning of a fingerprint, means this model; an empty text means any."""
    name, _, beginning = wanted.rpartition("@")
    return wanted in ("", model.card.name) or (name == model.card.name and bool(beginning) and model.fingerprint.startswith(beginning))
