import errno
import json
import math
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threepc.errors import InputError, RunError
from threepc.files import ROOM, check_writable, parse_json, read_json, write_atomically

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_a_file_is_written_whole_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "folder" / "a.json"
    write_atomically(path, b"one")
    write_atomically(path, lambda file: file.write(b"two"))
    assert path.read_bytes() == b"two"
    assert [each.name for each in path.parent.iterdir()] == ["a.json"]


def test_a_write_that_breaks_off_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def half(file):
        file.write(b"half of the ")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, half)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_secret_is_never_readable_by_others(tmp_path):
    path = tmp_path / "key"
    seen = []
    write_atomically(path, lambda file: seen.append(stat.S_IMODE(os.fstat(file.fileno()).st_mode)), 0o600)
    assert seen == [0o600]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "path, reason", [("/proc/nothing/here", "No such file"), ("{}/file/below", "File exists"), ("{}/folder", "Is a directory")]
)
def test_where_nothing_can_be_written(tmp_path, path, reason):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    path = Path(path.format(tmp_path))
    with pytest.raises(InputError, match=f"^cannot write {path}: {reason}"):
        write_atomically(path, b"")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]


@given(PLAIN)
def test_what_json_writes_is_read(value):
    assert parse_json(json.dumps(value), "it") == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode(), "it") == value


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "not JSON: Expecting value"),
        ('{"a": 1, "b": 2, "a": 1}', "not JSON: the key 'a' occurs twice"),
        ('[{"\\u001b[2J": 1, "\\u001b[2J": 1}]', r"not JSON: the key '\\x1b\[2J' occurs twice"),
        ("[NaN]", "not JSON: NaN is no number"),
        ("[-Infinity]", "not JSON: -Infinity is no number"),
        ("[1e999]", "not JSON: the number 1e999 is too large"),
        ("[" + "1" * 5000 + "]", "not JSON: Exceeds the limit"),
        ("[" * 200_000, "not JSON: nested too deeply"),
        ('{"a":' * 200_000, "not JSON: nested too deeply"),
        (b"\xff", "not JSON: 'utf-8' codec"),
        ("{} {}", "not JSON: Extra data"),
    ],
)
def test_what_is_not_strict_json(text, reason):
    with pytest.raises(InputError, match=f"^the card: {reason}"):
        parse_json(text, "the card")


def test_a_json_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2.5]}')
    assert read_json(path, "the file") == {"a": [1, 2.5]}
    path.write_text("{")
    with pytest.raises(InputError, match=f"^the file {path}: not JSON: "):
        read_json(path, "the file")
    with pytest.raises(InputError, match=f"^cannot read the file {tmp_path}/none: No such file"):
        read_json(tmp_path / "none", "the file")
    assert math.isfinite(parse_json("1e308", "it"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_no_bad_input(tmp_path, number):
    def fail(file):
        raise OSError(number, os.strerror(number))

    with pytest.raises(RunError, match=f"^cannot write {tmp_path / 'a'}: {os.strerror(number)}$"):
        write_atomically(tmp_path / "a", fail)
    assert not list(tmp_path.iterdir())


def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"pipe: it is no file$"):
        write_atomically(tmp_path / "pipe", b"")
    assert (tmp_path / "pipe").is_fifo() and [each.name for each in tmp_path.iterdir()] == ["pipe"]


def test_looking_whether_a_file_can_be_written_makes_nothing(tmp_path):
    (tmp_path / "file").touch()
    for path, folder in (("new/deeper/file", False), ("new", True), ("file", False), (".", True)):
        check_writable(tmp_path / path, folder)
    for path, folder, reason in (
        (".", False, "cannot be written$"),
        ("file", True, "cannot be made: .*file is no folder$"),
        ("file/deeper", False, "the folder .*file cannot be made"),
        ("x" * 300, False, "File name too long"),
    ):
        with pytest.raises(InputError, match=reason):
            check_writable(tmp_path / path, folder)
    check_writable(None)
    assert [each.name for each in tmp_path.iterdir()] == ["file"] and ROOM > 0
