"""Masked weights that a client keeps: used where they are whole, never where they are not, and no more than may be kept."""

import dataclasses
import os

import numpy as np
import pytest

from tests.graph.building import twins
from tests.party.parties import assert_close, images, serving, small_model
from threepc.images.card import ModelCard, Preprocessing
from threepc.model.served import PublicModel, ServedModel
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector
from threepc.party.offered import OfferedModel
from threepc.party.session import Options
from threepc.party.weight_cache import HeldWeights, WeightCache, digest_of
from threepc.plan.precision import Precision

MODEL = small_model()
PARTS = [np.arange(100, dtype=np.uint8), np.arange(60, dtype=np.uint8)]
SIZES = [100, 60]


@pytest.fixture
def told():
    return []


@pytest.fixture
def cache(tmp_path, told):
    return WeightCache(told.append, tmp_path / "weights", 1000)


def test_what_is_kept_is_read(cache, told):
    digest = digest_of(PARTS)
    assert cache.read(digest, SIZES) is None
    cache.keep(digest, PARTS)
    for part, read in zip(PARTS, cache.read(digest, SIZES), strict=True):
        np.testing.assert_array_equal(read, part)
    assert told == []


def test_it_is_this_user_s_alone(cache, tmp_path):
    cache.keep(digest_of(PARTS), PARTS)
    (file,) = (tmp_path / "weights").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700


def test_a_changed_file_is_not_used(cache, told, tmp_path):
    digest = digest_of(PARTS)
    cache.keep(digest, PARTS)
    path = tmp_path / "weights" / digest
    path.write_bytes(b"\1" + path.read_bytes()[1:])
    assert cache.read(digest, SIZES) is None
    assert "was changed or damaged" in told[0] and not path.exists()


def test_a_file_of_another_size_is_not_used(cache):
    digest = digest_of(PARTS)
    cache.keep(digest, PARTS)
    assert cache.read(digest, [100, 61]) is None


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "0" * 63, "A" * 64, "0" * 64 + "\n"])
def test_a_server_chooses_no_path(cache, tmp_path, name):
    cache.keep(name, PARTS)
    assert cache.read(name, SIZES) is None and not (tmp_path / "weights").exists()


@pytest.mark.parametrize("name", ["../other", "FOLDER/other", "0" * 63, "0" * 64 + "\n"])
def test_a_server_has_no_file_removed_that_is_no_digest(cache, tmp_path, name):
    """One of the right size, which has another digest than its name says."""
    name, content = name.replace("FOLDER", str(tmp_path)), bytes(sum(SIZES))
    cache.keep(digest_of(PARTS), PARTS)
    file = tmp_path / "weights" / name
    file.write_bytes(content)
    assert cache.read(name, SIZES) is None and file.read_bytes() == content


def test_what_is_not_what_it_is_called_is_not_kept(cache, told):
    cache.keep("0" * 64, PARTS)
    assert cache.read("0" * 64, SIZES) is None and "not what the server called them" in told[0]


def test_the_oldest_go_first(cache, tmp_path):
    several = [[np.full(300, number, np.uint8)] for number in range(4)]
    for age, parts in enumerate(several):
        cache.keep(digest_of(parts), parts)
        if (path := tmp_path / "weights" / digest_of(parts)).exists():
            os.utime(path, (age, age))
    assert [cache.read(digest_of(parts), [300]) is not None for parts in several] == [False, True, True, True]


def test_what_cannot_be_written_is_said(told, tmp_path):
    (tmp_path / "weights").write_text("a file")
    WeightCache(told.append, tmp_path / "weights").keep(digest_of(PARTS), PARTS)
    assert "the masked weights are not kept" in told[0]


def test_a_second_session_receives_no_weights(cache, tmp_path):
    connector, x = MemoryConnector(), images()
    options = dataclasses.replace(Options(timeout=60), weight_cache=cache)
    cache._most_bytes = 1 << 20
    received = []
    with serving(connector, MODEL, Options(timeout=60)):
        for damage in (False, False, True):
            if damage:
                (file,) = (tmp_path / "weights").iterdir()
                file.write_bytes(bytes(file.stat().st_size))
            with ClientSession(connector, options) as session:
                assert_close(MODEL, x, session.infer(x)[0])
                received.append(session.setup_links.get("server->client", (0, 0))[0])
    setup = MODEL.public.plan(1).cost.setup["server->client"]
    assert received == [setup, 0, setup]


def test_masked_anew_it_is_another_file():
    """A server that starts again has another mask; what a client kept of the former one cannot be taken for it."""
    assert OfferedModel(MODEL).digest != OfferedModel(MODEL).digest


def test_weights_that_two_layers_use_are_sent_and_kept_once(told, tmp_path):
    """A session receives them from the server, a second one from the disk; both give what the network gives."""
    model = ServedModel(PublicModel(twins()[0], Precision.default(48), None, ModelCard("twins", Preprocessing((9, 9)))), twins()[1])
    connector, x = MemoryConnector(), np.random.default_rng(0).normal(size=(1, 4, 9, 9))
    options = Options(timeout=60.0, weight_cache=WeightCache(told.append, tmp_path / "weights"))
    with serving(connector, model, options):
        for _ in range(2):
            with ClientSession(connector, options) as session:
                assert_close(model, x, session.infer(x)[0])
        assert len(session._weights) == 2
    (kept,) = (tmp_path / "weights").iterdir()
    assert kept.stat().st_size == sum(model.public.plan(1).cost.setup.values())


def test_weights_in_memory_are_of_one_digest_and_one_model():
    """A server that starts anew masks its weights anew; the same weights serve two graphs."""
    held, weights = HeldWeights(), {0: None}
    held.keep("digest", "model", weights)
    assert held.get("digest", "model") is weights
    assert held.get("another", "model") is held.get("digest", "another") is None
