"""The reader of pickles runs nothing, and a pickle made to exhaust it is refused."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from threepc.errors import InputError
from threepc.mmlab.array_pickle import read_arrays

LARGEST = 1 << 24


@pytest.fixture
def write(tmp_path):
    def to_file(raw: bytes) -> Path:
        path = tmp_path / "arrays.pickle"
        path.write_bytes(raw)
        return path

    return to_file


class Executes:
    """Pickles as a call; a reader that runs it creates a file."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "call",
    [
        (os.system, "touch ran"),
        (eval, "open('ran', 'w')"),
        (exec, "open('ran', 'w')"),
        (open, "ran", "w"),
        (np.save, "ran", 1),
        (Path.touch, Path("ran")),
    ],
)
def test_code_is_refused_and_not_run(tmp_path, monkeypatch, write, protocol, call):
    monkeypatch.chdir(tmp_path)
    path = write(pickle.dumps({"array": np.arange(3), "code": Executes(*call)}, protocol))
    with pytest.raises(InputError, match="refused, the pickle holds the name"):
        read_arrays(path, LARGEST)
    assert [file.name for file in tmp_path.iterdir()] == ["arrays.pickle"]


def keys_of_nested_tuples(depth: int) -> bytes:
    """Two equal keys, each a tuple in a tuple in a tuple: to compare, or even hash them, CPython goes as deep."""
    key = pickle.EMPTY_TUPLE + pickle.TUPLE1 * depth
    return pickle.PROTO + b"\x04" + pickle.EMPTY_DICT + pickle.MARK + (key + pickle.NONE) * 2 + pickle.SETITEMS + pickle.STOP


@pytest.mark.parametrize(
    "raw, message",
    [
        (b"", r"not a readable pickle \(\w+\)"),
        (b"garbage", r"not a readable pickle \(\w+\)"),
        (pickle.dumps([1, 2]), "the pickle holds no dictionary"),
        (pickle.dumps({"a": np.ones((2, 2))}), "refused, the pickle holds an array of type 'f8', not of integers"),
        (pickle.dumps({"a": np.array([[os.system, 1]])}), "refused, the pickle holds an array of type 'O8'"),
        (pickle.dumps({"a": np.zeros(2, dtype=[("a", "i4")])}), "refused, the pickle holds an array of type 'V4'"),
        (pickle.dumps({"a": np.ones((2, 2), int)})[:-30] + b".", "not a readable pickle"),
        # A memo index of 2^31: the unpickler would reserve that many entries.
        (b"\x80\x04}r\xff\xff\xff\x7f.", "refused, the pickle holds a memo index out of range"),
        (keys_of_nested_tuples(10_000), r"not a readable pickle \(RecursionError\)"),
        (keys_of_nested_tuples(2_000_000), "refused, the pickle holds more than 50000 tuples"),
        # BUILD on an admitted function, and an array whose bytes do not match its shape.
        (b"\x80\x02c_codecs\nencode\n}b.", "refused, the pickle holds an assignment to a function"),
        (
            b"\x80\x02}U\x04stemcnumpy.core.numeric\n_frombuffer\n(U\x02abcnumpy\ndtype\nU\x02i8\x85RK\x09K\x02\x86U\x01CtRs.",
            "refused, the pickle holds an array whose bytes do not match its shape",
        ),
        (b"\x80\x04}\x8c\x01aPx\ns.", "refused, the pickle holds a persistent reference"),
    ],
)
def test_other_pickles_are_refused(write, raw, message):
    with pytest.raises(InputError, match=f"arrays.pickle: {message}"):
        read_arrays(write(raw), LARGEST)


def test_byte_strings_of_python_2_are_texts_and_arrays(write):
    # {'name': 'caf\xe9', 'data': array([255, 1], uint8)} as Python 2 and protocol 2 wrote it
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\xff\x01tb"
    )
    content = read_arrays(write(b"\x80\x02}(U\x04nameU\x04caf\xe9U\x04data" + array + b"u."), LARGEST)
    assert content["name"] == "café"
    assert content["data"].dtype == np.uint8 and content["data"].tolist() == [255, 1]


def test_a_file_that_is_too_large_or_absent(write, tmp_path):
    with pytest.raises(InputError, match="larger than 1 MB"):
        read_arrays(write(bytes((1 << 20) + 1)), 1 << 20)
    with pytest.raises(InputError, match=r"cannot read .*nowhere: No such file"):
        read_arrays(tmp_path / "nowhere", LARGEST)
