"""Streams against the definition of AES-CTR, and the rule that no position is drawn twice."""

import pickle

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from threepc import prf
from threepc.errors import RunError
from threepc.kernels.keystream import Source, fill
from threepc.prf import Keystream, derive_key, new_key

KEY = bytes(range(16))


def blocks_by_definition(key: bytes, attempt: int, op: int, purpose: int, first: int, count: int) -> bytes:
    """AES-CTR written out: each counter block encrypted on its own."""
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    counters = [
        attempt.to_bytes(4, "big") + op.to_bytes(3, "big") + purpose.to_bytes(1, "big") + (first + i).to_bytes(8, "big")
        for i in range(count)
    ]
    return encryptor.update(b"".join(counters))


def opened(attempt: int = 1, key: bytes = KEY) -> Keystream:
    keystream = Keystream(key)
    keystream.begin_attempt(attempt)
    return keystream


def draw(keystream: Keystream, attempt: int, op: int, purpose: int, nbytes: int) -> bytes:
    return keystream.stream(attempt, op, purpose).fill(np.empty(nbytes, np.uint8)).tobytes()


def draw_in_kernels(keystream: Keystream, attempt: int, op: int, purpose: int, nbytes: int, start_block: int = 0) -> bytes:
    source, array = keystream.source(attempt, op, purpose, start_block + nbytes // 16 + 1), np.empty(nbytes, np.uint8)
    assert fill(source, start_block, array) == start_block + -(-nbytes // 16)
    return array.tobytes()


@pytest.fixture(scope="module")
def instructions():
    """Asked as a test runs, for the answer compiles kernels."""
    if not prf.instructions_agree():
        pytest.skip("this processor has no AES instructions that are known here")


with_instructions = pytest.mark.usefixtures("instructions")


@pytest.fixture(params=["library", "instructions"])
def way(request, monkeypatch):
    """The ways in which kernels get their words on this processor."""
    if request.param == "library":
        monkeypatch.setattr(prf, "instructions_agree", lambda: False)
    else:
        request.getfixturevalue("instructions")


@with_instructions
def test_known_answer_of_the_ctr_standard():
    # NIST SP 800-38A, F.5.1: its initial counter f0f1..ff, its key stream the test vector; FIPS 197's example of a key's expansion is the same key.
    keys = prf._expanded(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"))
    assert keys.tobytes()[-16:].hex() == "d014f9a8c9ee2589e13f0cc8b6630ca6"
    source, stream = Source(keys, np.uint64(0xF0F1F2F3F4F5F6F7), np.empty(0, np.uint8)), np.empty(32, np.uint8)
    # the upper bit of a counter's lower half is set here and never in use
    fill(source, np.uint64(0xF8F9FAFBFCFDFEFF), stream)
    plain = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")
    cipher = bytes(a ^ b for a, b in zip(stream.tobytes(), plain))
    assert cipher.hex() == "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"


ADDRESSES = st.integers(0, 2**32 - 1), st.integers(0, 2**24 - 1), st.integers(0, 255)


@given(*ADDRESSES, st.integers(1, 1600))
def test_stream_equals_the_definition(attempt, op, purpose, nbytes):
    expected = blocks_by_definition(KEY, attempt, op, purpose, 0, -(-nbytes // 16))[:nbytes]
    assert draw(opened(attempt), attempt, op, purpose, nbytes) == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(*ADDRESSES, st.integers(0, 200), st.integers(1, 3000))
def test_kernels_draw_the_definition(way, attempt, op, purpose, block, nbytes):
    expected = blocks_by_definition(KEY, attempt, op, purpose, block, -(-nbytes // 16))[:nbytes]
    assert draw_in_kernels(opened(attempt), attempt, op, purpose, nbytes, block) == expected


@with_instructions
@given(st.binary(min_size=16, max_size=16), st.integers(2**32, 2**62), st.integers(1, 600))
def test_kernels_count_on_in_the_lower_half_alone(key, block, nbytes):
    array, upper = np.empty(nbytes, np.uint8), (7 << 24 | 5) << 8 | 3
    fill(Source(prf._expanded(key), np.uint64(upper), np.empty(0, np.uint8)), block, array)
    assert array.tobytes() == blocks_by_definition(key, 7, 5, 3, block, -(-nbytes // 16))[:nbytes]


@with_instructions
def test_instructions_that_disagree_are_not_used(monkeypatch):
    """The library is the definition: a wrong expansion, say, must show before any key is used."""
    right = prf._expanded
    monkeypatch.setattr(prf, "_expanded", lambda key: right(key) ^ np.uint64(1))
    assert not prf.instructions_agree.__wrapped__()


def test_fills_longer_than_the_internal_chunk_are_seamless():
    nbytes = 3 * (1 << 18) + 48
    assert draw(opened(), 1, 2, 3, nbytes) == blocks_by_definition(KEY, 1, 2, 3, 0, nbytes // 16)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_word_types_see_the_same_bytes(dtype):
    array = np.empty((4, 2, 16), dtype)
    assert opened().stream(1, 5, 6).fill(array) is array
    assert array.tobytes() == blocks_by_definition(KEY, 1, 5, 6, 0, array.nbytes // 16)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=8))
def test_every_fill_starts_on_a_fresh_block(lengths):
    stream = opened().stream(1, 0, 0)
    position = 0
    for length in lengths:
        expected = blocks_by_definition(KEY, 1, 0, 0, position, -(-length // 16))[:length]
        assert stream.fill(np.empty(length, np.uint8)).tobytes() == expected
        position += -(-length // 16)


def test_addresses_are_disjoint():
    keystream = Keystream(KEY)
    seen = set()
    for attempt in (0, 1, 2**32 - 1):
        keystream.begin_attempt(attempt)
        for op in (0, 1, 2**24 - 1):
            for purpose in (0, 1, 255):
                data = draw(keystream, attempt, op, purpose, 64)
                seen.update(data[i : i + 16] for i in range(0, 64, 16))
    assert len(seen) == 27 * 4


@pytest.mark.parametrize("first", ["stream", "source"])
@pytest.mark.parametrize("second", ["stream", "source"])
def test_an_address_is_opened_once(first, second):
    keystream = opened()
    use = {"stream": keystream.stream, "source": lambda *address: keystream.source(*address, 4)}
    use[first](1, 2, 3)
    with pytest.raises(RunError, match="attempt 1, op 2, purpose 3 would be used twice"):
        use[second](1, 2, 3)
    use[second](1, 2, 4)


def test_attempts_only_increase():
    keystream = opened(3)
    for attempt in (3, 2, 0):
        with pytest.raises(RunError, match="attempts only increase and 3"):
            keystream.begin_attempt(attempt)
    keystream.begin_attempt(4)
    keystream.stream(3, 0, 0)
    keystream.end_attempt(3)
    with pytest.raises(RunError, match="attempt 3 is not open"):
        keystream.stream(3, 1, 0)
    with pytest.raises(RunError, match="attempts only increase"):
        keystream.begin_attempt(3)
    keystream.stream(4, 0, 0)
    assert keystream.last_attempt == 4


@pytest.mark.parametrize(
    "address, field", [((2**32, 0, 0), "attempt"), ((1, 2**24, 0), "op"), ((1, 0, 256), "purpose"), ((1, -1, 0), "op")]
)
def test_fields_out_of_range_are_refused(address, field):
    with pytest.raises(ValueError, match=f"the {field} of"):
        opened().stream(*address)


@pytest.mark.parametrize("array", [np.empty(4, np.int64), np.empty(4), np.empty((4, 4), np.uint64).T, np.empty(8, np.uint64)[::2]])
def test_unsuitable_arrays_are_refused(array):
    with pytest.raises(ValueError, match="C-contiguous arrays of unsigned words"):
        opened().stream(1, 0, 0).fill(array)


def test_erased_keys_are_gone():
    keystream = opened()
    held, expanded = keystream._key, keystream._round_keys
    source = keystream.source(1, 2, 0, 4)
    before = fill(source, 0, np.empty(64, np.uint8))
    keystream.erase()
    assert held == bytes(16) and not expanded.any()
    for use in (lambda: keystream.stream(1, 0, 0), lambda: keystream.source(1, 0, 0, 4)):
        with pytest.raises(RunError, match=r"^the key of this session has been erased$"):
            use()
    # what is still running goes on under the key, never under zeros
    after = np.empty(64, np.uint8)
    assert fill(source, 0, after) == before and after.tobytes() == blocks_by_definition(KEY, 1, 2, 0, 0, 4)


def test_keys_never_show():
    keystream = opened()
    assert KEY.hex() not in repr(keystream) and str(KEY) not in repr(keystream)
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(keystream)


def test_keys_have_sixteen_bytes():
    assert len(new_key()) == 16 and new_key() != new_key()
    for wrong in (b"", bytes(15), bytes(32)):
        with pytest.raises(ValueError, match=r"^a PRF key has 16 bytes, not "):
            Keystream(wrong)
        with pytest.raises(ValueError, match=r"^a PRF key has 16 bytes, not "):
            derive_key(wrong, b"context")


def test_derived_keys_depend_on_key_and_context():
    keys = {derive_key(key, context) for key in (KEY, new_key()) for context in (b"", b"a", b"b")}
    assert len(keys) == 6
    assert derive_key(KEY, b"a") == derive_key(KEY, b"a")
