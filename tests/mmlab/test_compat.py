"""The placeholders work where packages are missing, refuse to be called, and leave no trace."""

import importlib.util
import subprocess
import sys
import warnings

import pytest

from threepc.errors import InputError
from threepc.mmlab import compat


def test_a_placeholder_may_be_named_and_derived_from_but_not_called():
    with compat._placeholder("nowhere.ops", "no_such_package", "mmcv-full"):
        from nowhere.ops import sigmoid_focal_loss

        class Derived(sigmoid_focal_loss):
            pass

    for absent in (sigmoid_focal_loss, Derived):
        with pytest.raises(InputError, match=r"nowhere.ops.sigmoid_focal_loss, which is not installed here; install mmcv-full"):
            absent(1, gamma=2)


def test_a_placeholder_is_withdrawn_and_never_replaces_what_is_there():
    with compat._placeholder("no_such_package", "no_such_package", "it"):
        assert "no_such_package" in sys.modules
    assert "no_such_package" not in sys.modules
    with compat._placeholder("json", "json", "json"):
        import json

        assert json.loads("1") == 1


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(compat, "MMLAB_MODULES", ("mmcls.no_such_part",))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mmcls" else True)
    with pytest.raises(InputError, match=r"the package mmcls is needed for this and is not installed: pip install .threepc\[mmlab\]"):
        compat.import_mmlab()


def test_only_the_known_warnings_are_silenced():
    with compat.known_warnings_silenced():
        for category, message in compat.KNOWN_WARNINGS:
            warnings.warn(message + " and more", category, stacklevel=1)
        with pytest.raises(UserWarning, match=r"^something else$"):
            warnings.warn("something else", UserWarning, stacklevel=1)


def test_mmlab_imports_without_a_warning_and_leaves_no_placeholder():
    code = """if True:
        from threepc.mmlab import compat
        compat.import_mmlab()
        import sys
        import mmcls.models, mmseg.models
        for name in ("torchvision", "mmcv.ops"):
            module = sys.modules.get(name)
            assert module is None or module.__file__, name
        print("imported")
    """
    # FutureWarning and the like at start-up of foreign packages would end the process
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "imported\n", "")


def test_a_torchvision_of_another_build_of_torch_is_imported_without_its_compiled_operations(tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("""if True:
        import warnings
        import torch
        @torch.library.register_fake("torchvision::absent")
        def absent(boxes): return boxes
        warnings.warn("Failed to load image Python extension: undefined symbol")
        loaded = True
    """)
    code = "from threepc.mmlab import compat; assert compat.import_torchvision(); import torchvision; print(torchvision.loaded)"
    run = [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"]
    result = subprocess.run(run, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "True\n", "")


def test_any_other_failure_of_torchvision_is_told(tmp_path, monkeypatch):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('broken on purpose')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with pytest.raises(RuntimeError, match=r"^broken on purpose$"):
        compat.import_torchvision()
