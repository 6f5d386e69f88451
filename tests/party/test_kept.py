"""Outputs that are kept: whole or not there, of one model, and asked for once."""

import json

import numpy as np
import pytest

from tests.graph import building
from tests.party.parties import images, small_model
from threepc.errors import InputError, RunError
from threepc.model.served import PublicModel
from threepc.party.batches import infer_missing
from threepc.party.kept import MANIFEST, KeptOutputs
from threepc.party.record import Record

PUBLIC = small_model().public
PIXELS = images(7).astype(np.float32)


def asked(kept, pixels, batch=2, fails_after=None):
    """The outputs, and how many images went through a stand-in for the network, which may fail."""
    sizes = []

    def infer(part):
        if fails_after is not None and len(sizes) == fails_after:
            raise RunError("gone", "lost")
        sizes.append(len(part))
        return part.sum(axis=(2, 3), dtype=np.float64)[:, :, None, None], Record({"offline": 0.0, "online": 1.0, "total": 1.0})

    outputs, record, count = infer_missing(infer, PUBLIC, pixels, batch, kept)
    assert count == sum(sizes)
    assert record.seconds["online"] == len(sizes)
    return outputs, sizes


def test_a_later_call_asks_for_what_is_missing(tmp_path):
    with pytest.raises(RunError, match="gone"):
        asked(KeptOutputs(tmp_path, PUBLIC), PIXELS, fails_after=2)
    outputs, sizes = asked(KeptOutputs(tmp_path, PUBLIC), PIXELS)
    assert sizes == [2, 1]
    np.testing.assert_array_equal(outputs, PIXELS.sum(axis=(2, 3), dtype=np.float64))
    again, sizes = asked(KeptOutputs(tmp_path, PUBLIC), PIXELS[::-1])
    assert sizes == []
    np.testing.assert_array_equal(again, outputs[::-1])


def test_a_file_is_whole_or_not_there(tmp_path):
    kept = KeptOutputs(tmp_path, PUBLIC)
    asked(kept, PIXELS)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".npy"}
    next(tmp_path.glob("*.npy")).write_bytes(b"half")
    with pytest.raises(InputError, match="cannot be read as an array: remove it"):
        asked(kept, PIXELS)


def test_another_model_is_refused(tmp_path):
    KeptOutputs(tmp_path, PUBLIC)
    with pytest.raises(InputError, match=r"holds outputs of 'small', fingerprint [0-9a-f]{12}, but the server has .*: name another folder"):
        KeptOutputs(tmp_path, small_model(channels=5).public)
    (tmp_path / MANIFEST).write_text(json.dumps(["not", "this"]))
    with pytest.raises(InputError, match="holds outputs of something else"):
        KeptOutputs(tmp_path, PUBLIC)


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="holds other files: name a new folder"):
        KeptOutputs(tmp_path, PUBLIC)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_several_outputs_are_kept_together(tmp_path):
    graph, _ = building.heads()
    public = PublicModel(graph, PUBLIC.precision, None, PUBLIC.card, "logits,logits,label")
    pixels, numbers = np.random.default_rng(1).normal(size=(3, 3, 8, 8)), 5 + 6 * 4 * 4 + 2 * 2

    def infer(part):
        return part.reshape(len(part), -1)[:, :numbers], Record({"offline": 0.0, "online": 1.0, "total": 1.0})

    for count in (3, 0):
        outputs, _, asked = infer_missing(infer, public, pixels, 2, KeptOutputs(tmp_path, public))
        assert asked == count
        assert [array.shape for array in outputs] == [(3, 5), (3, 6, 4, 4), (3, 2, 2)]
        np.testing.assert_array_equal(outputs[0], pixels.reshape(3, -1)[:, :5])
