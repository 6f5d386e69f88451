"""Checkpoints load strictly, and nothing in them runs."""

import collections
import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from threepc.errors import InputError
from threepc.mmlab.checkpoint import load_checkpoint
from threepc.mmlab.compat import import_mmlab


def network():
    return nn.Sequential(collections.OrderedDict(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), fc=nn.Linear(4, 2)))


@pytest.fixture
def trained():
    model = network()
    for value in model.state_dict().values():
        value.fill_(2) if value.dtype == torch.int64 else value.uniform_(0.5, 1)
    return model


def assert_loaded(model, trained):
    for name, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_a_checkpoint_as_mmcv_saves_it(tmp_path, trained):
    import_mmlab()
    from mmcv.runner import save_checkpoint

    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    save_checkpoint(trained, str(tmp_path / "a.pth"), optimizer, meta={"CLASSES": ("cat", "dog"), "epoch": 3, "config": "model = ..."})
    model = network()
    meta = load_checkpoint(model, tmp_path / "a.pth")
    assert_loaded(model, trained)
    assert meta["CLASSES"] == ("cat", "dog")


@pytest.mark.parametrize(
    "save",
    [
        lambda state: state,
        lambda state: {"state_dict": state},
        lambda state: {"module." + name: value for name, value in state.items()},
        lambda state: {"model": state, "epoch": 3},
        lambda state: {
            "model_state_dict": {"_orig_mod.module." + name: value for name, value in state.items()},
            "optimizer": {"state": {}},
        },
        lambda state: {"state_dict": {"model." + name: value for name, value in state.items()}, "hyper_parameters": {}},
        lambda state: state | {"auxiliary_head.weight": torch.zeros(3)},
    ],
)
def test_the_usual_layouts(tmp_path, trained, save):
    torch.save(save(trained.state_dict()), tmp_path / "a.pth")
    model = network()
    assert load_checkpoint(model, tmp_path / "a.pth", ignore=("auxiliary_head.",)) == {}
    assert_loaded(model, trained)


def test_half_precision_and_old_checkpoints_without_batch_counts(tmp_path, trained):
    state = {name: value.half() for name, value in trained.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "a.pth")
    model = network()
    load_checkpoint(model, tmp_path / "a.pth")
    assert model.conv.weight.dtype == torch.float32
    assert torch.equal(model.conv.weight, trained.conv.weight.half().float())


def test_a_foreign_checkpoint_is_refused_with_counts_and_names(tmp_path, trained):
    state = trained.state_dict()
    state["fc.weight"] = torch.zeros(5, 4)
    del state["conv.bias"]
    for index in range(5):
        state[f"extra.{index}"] = torch.zeros(1)
    torch.save(state, tmp_path / "a.pth")
    model = network()
    before = model.conv.weight.clone()
    with pytest.raises(InputError, match="is for another model") as caught:
        load_checkpoint(model, tmp_path / "a.pth")
    assert str(caught.value).endswith(
        "a.pth is for another model: 1 missing (conv.bias); 5 unexpected (extra.0, extra.1, extra.2, ...); "
        "1 of another shape (fc.weight (5, 4) instead of (2, 4))"
    )
    assert torch.equal(model.conv.weight, before)


def test_names_that_the_module_has_itself_keep_their_prefix(tmp_path, trained):
    torch.save(nn.DataParallel(trained).state_dict(), tmp_path / "a.pth")
    model = network()
    load_checkpoint(nn.DataParallel(model), tmp_path / "a.pth")
    assert_loaded(model, trained)


def test_integers_of_a_quantised_network_are_no_weights(tmp_path, trained):
    torch.save({name: value.to(torch.int8) for name, value in trained.state_dict().items()}, tmp_path / "a.pth")
    with pytest.raises(
        InputError, match=r"for another model: 8 integers instead of floats \(conv\.weight, conv\.bias, bn\.weight, \.\.\.\)"
    ):
        load_checkpoint(network(), tmp_path / "a.pth")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_folder_and_a_torchscript_archive_are_refused_without_a_warning(tmp_path, trained):
    with pytest.raises(InputError, match="is not a file"):
        load_checkpoint(network(), tmp_path)
    torch.jit.script(trained).save(str(tmp_path / "a.pt"))
    with pytest.raises(InputError, match=r"a\.pt is damaged or not a PyTorch checkpoint"):
        load_checkpoint(network(), tmp_path / "a.pt")


@pytest.mark.parametrize("numpy_module", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_numpy_numbers_beside_the_weights_are_data(tmp_path, trained, numpy_module):
    scores = {"best": np.float64(0.75), "of": [np.float32(1.5), np.int64(3)]}
    torch.save({"state_dict": trained.state_dict(), "meta": {"hook_msgs": scores}}, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as new, zipfile.ZipFile(tmp_path / "a.pth", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core.multiarray", numpy_module))
    assert load_checkpoint(network(), tmp_path / "a.pth") == {"hook_msgs": scores}


class Executed(RuntimeError):
    pass


def execute():
    raise Executed("a checkpoint ran code")


class Bomb:
    def __reduce__(self):
        return execute, ()


def test_a_checkpoint_that_holds_code_is_refused_and_nothing_runs(tmp_path, trained):
    torch.save({"state_dict": trained.state_dict(), "meta": Bomb()}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match=r"zip.pth holds other Python objects than tensors and plain containers"):
        load_checkpoint(network(), tmp_path / "zip.pth")
    with pytest.raises(InputError, match=r"plain.pth is not a PyTorch checkpoint"):
        load_checkpoint(network(), tmp_path / "plain.pth")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "damaged or not a PyTorch checkpoint"),
        (b"not a checkpoint", "not a PyTorch checkpoint"),
        (b"PK\x03\x04 cut off", "not a PyTorch checkpoint"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, content, message):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_checkpoint(network(), tmp_path / "a.pth")


@pytest.mark.parametrize(
    "content", [[1, 2], torch.zeros(3), {}, {"state_dict": {}}, {"epoch": 3}, {3: torch.zeros(1)}, {"a": torch.zeros(1).to_sparse()}]
)
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"holds (no state dict of plain tensors|a \w+, not a state dict)"):
        load_checkpoint(network(), tmp_path / "a.pth")


def test_missing_and_not_finite(tmp_path, trained):
    with pytest.raises(InputError, match="does not exist"):
        load_checkpoint(network(), tmp_path / "a.pth")
    state = trained.state_dict()
    state["conv.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InputError, match="NaN or infinity: 1 such tensors"):
        load_checkpoint(network(), tmp_path / "a.pth")


@pytest.mark.parametrize(
    "old, new",
    [
        (b"q\x08X\x03\x00\x00\x00cpu", b"q\x08X\x03\x00\x00\x00\xff\xff\xff"),
        (b"tq\nQK\x00", b"K\x01QK\x00"),
        (b"_rebuild_tensor_v2\nq\x05((", b"_rebuild_tensor_v2\nq\x05(}"),
    ],
)
def test_damage_that_fuzzing_found_is_refused(tmp_path, old, new):
    """A changed pickle within a whole archive: torch's unpickler raises errors of many kinds."""
    path = tmp_path / "damaged.pth"
    torch.save({"state_dict": nn.Linear(2, 2).state_dict()}, path)
    data = path.read_bytes()
    at = data.index(b"data.pkl")
    found = data.find(old[:6], at)
    assert found > 0
    path.write_bytes(data[:found] + new + data[found + len(new) :])
    with pytest.raises(InputError, match=r"damaged\.pth (is|holds)"):
        load_checkpoint(nn.Linear(2, 2), path)
