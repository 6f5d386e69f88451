"""What a data owner sends: two messages that say nothing, each with a fresh key, and that together are its array."""

import numpy as np
import pytest

from tests.protocol.uniformity import COUNT, assert_uniform, bits_of
from threepc import tensors
from threepc.errors import InputError
from threepc.prf import Keystream
from threepc.ring import Ring
from threepc.tensors.owners import of_client, of_server


def program(count, ring):
    return tensors.trace(lambda p: p.reveal(p.input("x", (count,), "bank", limit=5), "client", "x"), ring)


@pytest.mark.parametrize("ring", (64, 48, 40, 32))
@pytest.mark.parametrize("count", (1, 65, 40_000))
def test_shares_are_the_array(ring, count):
    own, values = program(count, ring), np.linspace(-5, 5, count)
    shares = tensors.share(own, "x", values)
    words = of_client(shares.to_client, count, ring) + of_server(shares.to_server, count, ring)
    fraction = own.public.precision.fraction
    assert np.abs(Ring(ring).decode(words, fraction) - values).max() <= 2.0**-fraction


@pytest.mark.parametrize("ring", (48, 32))
def test_shares_show_nobody_anything(ring):
    """Of equal numbers: the server's words are uniform, and the client's key is fresh, whatever the numbers are."""
    own, values = program(COUNT, ring), np.full(COUNT, 3.0)
    shares = [tensors.share(own, "x", values) for _ in range(2)]
    for each in shares:
        assert_uniform(bits_of(of_server(each.to_server, COUNT, ring), ring), None)
    one, other = (of_server(each.to_server, COUNT, ring) for each in shares)
    assert_uniform(bits_of(one - other, ring), None)
    assert shares[0].to_client != shares[1].to_client


def test_a_share_of_another_size():
    own = program(3, 48)
    message = tensors.share(own, "x", [1, 2, 3]).to_server
    with pytest.raises(InputError, match="a share for the server is a message of 384 bytes"):
        of_server(message[:-1], 3, 48)
    for wrong in (message, 16, None):
        with pytest.raises(InputError, match="a share for the client is a message of 16 bytes"):
            of_client(wrong, 3, 48)


def test_the_key_of_a_share_is_erased_once_its_mask_is_drawn(monkeypatch):
    erased, erase = [], Keystream.erase
    monkeypatch.setattr(Keystream, "erase", lambda stream: (erased.append(stream), erase(stream)))
    of_client(tensors.share(program(3, 48), "x", [1, 2, 3]).to_client, 3, 48)
    assert len(erased) == 2, "by its owner and by the client"
