"""Streams against the definition of AES-CTR, and the rule that no position is drawn twice."""

import pickle

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from threepc.errors import RunError
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


def draw(keystream: Keystream, attempt: int, op: int, purpose: int, nbytes: int, start_block: int = 0) -> bytes:
    return keystream.stream(attempt, op, purpose, start_block).fill(np.empty(nbytes, np.uint8)).tobytes()


def test_known_answer_of_the_ctr_standard():
    # NIST SP 800-38A, F.5.1: its initial counter f0f1..ff is an address like any other, its key stream the test vector.
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    attempt, op, purpose, block = 0xF0F1F2F3, 0xF4F5F6, 0xF7, 0xF8F9FAFBFCFDFEFF
    stream = draw(opened(attempt, key), attempt, op, purpose, 32, block)
    plain = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")
    cipher = bytes(a ^ b for a, b in zip(stream, plain))
    assert cipher.hex() == "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"


@given(
    st.integers(0, 2**32 - 1), st.integers(0, 2**24 - 1), st.integers(0, 255), st.integers(0, 2**64 - 100), st.integers(1, 1600)
)
def test_stream_equals_the_definition(attempt, op, purpose, block, nbytes):
    expected = blocks_by_definition(KEY, attempt, op, purpose, block, -(-nbytes // 16))[:nbytes]
    assert draw(opened(attempt), attempt, op, purpose, nbytes, block) == expected


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
        assert stream.position == position
        expected = blocks_by_definition(KEY, 1, 0, 0, position, -(-length // 16))[:length]
        assert stream.fill(np.empty(length, np.uint8)).tobytes() == expected
        position += -(-length // 16)


@given(st.permutations(range(6)), st.integers(1, 5))
def test_chunks_in_any_order_give_the_whole(order, blocks):
    whole = draw(opened(), 1, 9, 1, 6 * blocks * 16)
    keystream, parts = opened(), {}
    for i in order:
        parts[i] = draw(keystream, 1, 9, 1, blocks * 16, start_block=i * blocks)
    assert b"".join(parts[i] for i in range(6)) == whole


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


def test_an_address_is_opened_once():
    keystream = opened()
    keystream.stream(1, 2, 3)
    with pytest.raises(RunError, match=r"block 0 of stream \(attempt 1, op 2, purpose 3\) would be used twice"):
        keystream.stream(1, 2, 3)
    keystream.stream(1, 2, 4)


def test_opening_inside_a_drawn_part_is_refused():
    keystream = opened()
    keystream.stream(1, 2, 3).fill(np.empty(10, np.uint64))
    with pytest.raises(RunError, match="used twice"):
        keystream.stream(1, 2, 3, start_block=4)
    keystream.stream(1, 2, 3, start_block=5)


def test_running_into_another_part_is_refused_and_draws_nothing():
    keystream = opened()
    keystream.stream(1, 2, 3, start_block=4)
    stream = keystream.stream(1, 2, 3)
    stream.fill(np.empty(64, np.uint8))
    before = np.zeros(16, np.uint8)
    with pytest.raises(RunError, match="block 4 of a stream would be used twice"):
        stream.fill(before)
    assert not before.any()


def test_the_last_block_is_the_end():
    keystream = opened()
    stream = keystream.stream(1, 2, 3, start_block=2**64 - 1)
    stream.fill(np.empty(16, np.uint8))
    with pytest.raises(RunError, match="past the last"):
        stream.fill(np.empty(1, np.uint8))


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
    "address, field",
    [((2**32, 0, 0), "attempt"), ((1, 2**24, 0), "op"), ((1, 0, 256), "purpose"), ((1, -1, 0), "op"), ((1, 0, 0, 2**64), "start_block")],
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
    held = keystream._key
    keystream.erase()
    assert held == bytes(16)
    with pytest.raises(RunError, match="erased"):
        keystream.stream(1, 0, 0)


def test_keys_never_show():
    keystream = opened()
    assert KEY.hex() not in repr(keystream) and str(KEY) not in repr(keystream)
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(keystream)


def test_keys_have_sixteen_bytes():
    assert len(new_key()) == 16 and new_key() != new_key()
    for wrong in (b"", bytes(15), bytes(32)):
        with pytest.raises(ValueError, match="16 bytes"):
            Keystream(wrong)
        with pytest.raises(ValueError, match="16 bytes"):
            derive_key(wrong, b"context")


def test_derived_keys_depend_on_key_and_context():
    keys = {derive_key(key, context) for key in (KEY, new_key()) for context in (b"", b"a", b"b")}
    assert len(keys) == 6
    assert derive_key(KEY, b"a") == derive_key(KEY, b"a")
