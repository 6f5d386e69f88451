import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core import config

from threepc.kernels import options
from threepc.kernels.convolution import convolve, pack_weight
from threepc.kernels.keystream import fill
from threepc.prf import Keystream


def words(*shape):
    return np.arange(np.prod(shape), dtype=np.uint64).reshape(shape) * np.uint64(0x9E3779B97F4A7C15)


def checksums():
    for groups in (1, 6):
        for stride in (1, 2):
            weight = words(20, 6 // groups, 3, 3)[: 20 if groups == 1 else 18]
            y = convolve(words(2, 6, 9, 21), pack_weight(weight, groups, 48), padding=(1, 1, 1, 1), stride=(stride, stride))
            yield int((y % 2**48 * np.arange(y.size, dtype=np.uint64).reshape(y.shape)).sum())
    stream, drawn = Keystream(bytes(range(16))), np.empty(1500, np.uint8)
    stream.begin_attempt(1)
    fill(stream.source(1, 2, 3, 100), 3, drawn)
    yield drawn.tobytes().hex()


# What a process prints that has the processor of its environment: its choices, then the checksums.
PROGRAM = f"""
import numpy as np
from threepc.kernels import options
from threepc.kernels.convolution import convolve, pack_weight
from threepc.kernels.keystream import fill
from threepc.prf import Keystream
{inspect.getsource(words)}
{inspect.getsource(checksums)}
print(options.has_ifma(), options.vector_bits(), *checksums())
"""
PROCESSORS = [({"THREEPC_NO_IFMA": "1"}, options.vector_bits())]
if "avx2" in options.cpu_features():  # lesser processors of the same kind, which this one can play
    PROCESSORS.append(({"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+aes"}, 256))
    PROCESSORS.append(({"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"}, 128))


@pytest.mark.parametrize("environment, bits", PROCESSORS)
def test_other_processors_compute_the_same(environment, bits):
    run = subprocess.run([sys.executable, "-c", PROGRAM], env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", str(bits), *map(str, checksums())]


def test_processes_that_compile_at_the_same_moment_do_not_mix_machine_code(tmp_path):
    """The first has read the index, then the second saves, then the first does."""
    first, second, third = (options._FilesByKey(str(tmp_path), "kernel-1.py311", "stamp") for _ in range(3))
    index = first._load_index()
    second.save("key of the second", "code of the second")
    first._load_index = lambda: index
    first.save("key of the first", "code of the first")
    assert third.load("key of the first") == "code of the first"
    assert third.load("key of the second") is None  # lost, and compiled again
    second.save("key of the second", "code of the second")
    assert [third.load(f"key of the {which}") for which in ("first", "second")] == ["code of the first", "code of the second"]
    for file in tmp_path.glob("*.nbc"):
        file.unlink()
    assert third.load("key of the first") is None


@pytest.mark.usefixtures("fresh_cache")
def test_every_kernel_keeps_its_machine_code_so(tmp_path, monkeypatch):
    monkeypatch.setenv("THREEPC_CACHE", str(tmp_path))
    kernel = options.kernel(lambda x: x + 1)
    assert (kernel(1), kernel(1.5)) == (2, 2.5)
    assert isinstance(kernel._cache._cache_file, options._FilesByKey)
    assert len({file.name for file in tmp_path.rglob("*.nbc")}) == 2
    again = options.kernel(kernel.py_func)
    assert (again(1), again(1.5), again.stats.cache_misses) == (2, 2.5, {})


@pytest.fixture
def fresh_cache():
    """`cache_directory` without what it remembers, before and after."""
    options.cache_directory.cache_clear()
    yield
    options.cache_directory.cache_clear()


def test_cache_is_private(tmp_path, monkeypatch, fresh_cache):
    monkeypatch.setenv("THREEPC_CACHE", str(tmp_path / "cache"))
    directory = options.cache_directory()
    assert directory.startswith(str(tmp_path / "cache" / "kernels-"))
    assert Path(directory).stat().st_mode & 0o777 == 0o700


def test_cache_that_others_can_write_to_is_not_used(tmp_path, monkeypatch, fresh_cache):
    monkeypatch.setenv("THREEPC_CACHE", str(tmp_path))
    directory = options.cache_directory()
    Path(directory).chmod(0o770)
    options.cache_directory.cache_clear()
    with pytest.warns(UserWarning, match="THREEPC_CACHE"):
        assert options.cache_directory() is None


def test_cache_that_cannot_be_made_costs_only_time(tmp_path, monkeypatch, fresh_cache):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("THREEPC_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="compiled anew"):
        increment = options.kernel(lambda x: x + 1)
    assert increment(2) == 3


def test_cache_depends_on_the_choice_of_instructions(tmp_path, monkeypatch, fresh_cache):
    monkeypatch.setenv("THREEPC_CACHE", str(tmp_path))
    directories = set()
    for features in ({"avx2"}, {"avx2", "avx512f", "avx512dq"}, {"avx512f", "avx512dq", "avx512ifma"}):
        monkeypatch.setattr(options, "cpu_features", lambda features=features: frozenset(features))
        options.cache_directory.cache_clear()
        directories.add(options.cache_directory())
    assert len(directories) == 3


def test_cache_setting_of_others_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "theirs"))
    options.kernel(lambda x: x)
    assert str(tmp_path / "theirs") == config.CACHE_DIR


def test_ifma_can_be_switched_off(monkeypatch):
    monkeypatch.setattr(options, "cpu_features", lambda: frozenset({"avx512f", "avx512dq", "avx512ifma"}))
    monkeypatch.delenv("THREEPC_NO_IFMA", raising=False)
    assert options.has_ifma()
    monkeypatch.setenv("THREEPC_NO_IFMA", "1")
    assert not options.has_ifma()
