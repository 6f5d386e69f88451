"""ONNX files give what the network that they were made from gives, at every opset; damaged, foreign and hostile ones are refused in a line."""

import builtins
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

import threepc
from threepc.errors import InputError
from threepc.graph.importer import import_module
from threepc.images.card import ModelCard, Preprocessing
from threepc.model import onnx_file
from threepc.model.load import load_model

OPSETS = (9, 11, 13, 16, 18, 20)


class Residual(nn.Module):
    """Two branches, shapes worked out in the graph, pools of both kinds, a clip."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.depthwise = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x)
        x = self.pool(torch.relu(self.depthwise(x)) + x)
        x = torch.cat([x, torch.nn.functional.avg_pool2d(x, 1)], 1)
        x = nn.functional.adaptive_avg_pool2d(x, 1)
        return self.fc(x.view(x.shape[0], -1))


def export(module, path, opset=17, size=(3, 24, 24), **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's old exporter says that it is old; it needs no other package
        torch.onnx.export(module.eval(), (torch.zeros(1, *size),), str(path), dynamo=False, opset_version=opset, **options)
    return path


def random_statistics(module):
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_(-0.2, 0.2)
            norm.running_var.uniform_(0.5, 2)
    return module.eval()


@pytest.fixture
def residual():
    torch.manual_seed(1)
    return random_statistics(Residual())


@pytest.mark.parametrize("opset", OPSETS)
def test_a_network_that_torch_exported(tmp_path, residual, opset):
    path = export(residual, tmp_path / "residual.onnx", opset, dynamic_axes={"input": {0: "batch"}}, input_names=["input"])
    module, shape = onnx_file.load(path)
    images = torch.randn(3, 3, 24, 24)
    assert shape == (3, 24, 24)
    torch.testing.assert_close(module(images), residual(images))
    graph, weights = import_module(module, images[:1])
    assert {node.kind for node in graph.nodes} == {"input", "conv", "relu", "clip", "maxpool", "avgpool", "add", "concat", "output"}
    assert sum(weight["weight"].size for weight in weights.values()) == 8 * 27 + 8 * 9 + 16 * 5


def test_reshapes_made_for_one_image_are_of_an_image_each(tmp_path, residual):
    module, _ = onnx_file.load(export(residual, tmp_path / "one.onnx", 13))
    images = torch.randn(2, 3, 24, 24)
    torch.testing.assert_close(module(images), residual(images))


def single(kind, shape=(2, 4, 6, 8), opset=20, constants=(), outputs=1, **attributes):
    """A file's bytes with one operation on an input x, further operands constant."""
    names = [f"c{index}" if value is not None else "" for index, value in enumerate(constants)]
    results = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(kind, ["x", *names], results, name="the_one", **attributes)
    initial = [numpy_helper.from_array(np.asarray(value), name) for name, value in zip(names, constants, strict=True) if name]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in results]
    graph = helper.make_graph([node], "g", [x], y, initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


F32 = lambda *size: np.random.default_rng(len(size)).standard_normal(size).astype(np.float32)
I64 = lambda *values: np.array(values, np.int64)

SINGLE = {
    "conv same upper": single("Conv", constants=[F32(5, 4, 3, 2), F32(5)], auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv same lower": single("Conv", constants=[F32(5, 4, 2, 2)], auto_pad="SAME_LOWER"),
    "conv uneven pads": single("Conv", constants=[F32(4, 1, 3, 3)], group=4, pads=[0, 1, 2, 0]),
    "transposed": single("ConvTranspose", constants=[F32(4, 3, 3, 3), F32(3)], strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
    "max pool hanging": single("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
    "max pool ceil": single("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "average pool": single("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "average pool counted": single("AveragePool", kernel_shape=[3, 3], pads=[0, 1, 2, 0], count_include_pad=1),
    "global average": single("GlobalAveragePool"),
    "global maximum": single("GlobalMaxPool"),
    "mean of attribute": single("ReduceMean", opset=13, axes=[2, 3]),
    "mean of operand": single("ReduceMean", constants=[I64(2, 3)], keepdims=0),
    "sum of everything": single("ReduceSum"),
    "maximum": single("ReduceMax", constants=[I64(-1)]),
    "matrix": single("Gemm", (2, 6), constants=[F32(6, 5), F32(5)], alpha=0.5, beta=2.0),
    "matrix transposed": single("Gemm", (2, 6), constants=[F32(5, 6), F32(1)], transB=1),
    "product of matrices": single("MatMul", (2, 6), constants=[F32(6, 5)]),
    "difference": single("Sub", constants=[F32(4, 1, 1)]),
    "quotient": single("Div", constants=[F32(4, 1, 1)]),
    "prelu": single("PRelu", constants=[F32(4, 1, 1)]),
    "leaky": single("LeakyRelu", alpha=0.2),
    "hard sigmoid": single("HardSigmoid"),
    "hard sigmoid of torch": single("HardSigmoid", alpha=1 / 6),
    "clip": single("Clip", constants=[np.float32(-1), np.float32(2)]),
    "clip above": single("Clip", constants=[None, np.float32(0.5)]),
    "clip of attributes": single("Clip", opset=9, min=0.0, max=3.4e38),
    "gelu": single("Gelu"),
    "mish": single("Mish"),
    "power": single("Pow", constants=[np.float32(2)]),
    "softmax": single("Softmax", axis=1),
    "reshape": single("Reshape", constants=[I64(0, 2, -1)]),
    "squeeze": single("Squeeze", (2, 4, 1, 1), constants=[I64(2, 3)]),
    "unsqueeze": single("Unsqueeze", constants=[I64(1, -1)]),
    "flatten": single("Flatten", axis=-2),
    "transpose": single("Transpose", perm=[0, 2, 3, 1]),
    "slice": single("Slice", constants=[I64(1, -1), I64(3, -9), I64(1, 3), I64(1, -2)]),
    "slice of attributes": single("Slice", opset=9, axes=[2], starts=[1], ends=[99]),
    "split": single("Split", constants=[I64(1, 3)], outputs=2, axis=1),
    "split evenly": single("Split", outputs=2, axis=1, num_outputs=2),
    "gather one": single("Gather", constants=[np.array(-1)], axis=1),
    "gather some": single("Gather", constants=[I64(2, 0)], axis=1),
    "pad": single("Pad", constants=[I64(0, 0, 1, 2, 0, 0, 0, 3), np.float32(1.5)]),
    "pad axes": single("Pad", constants=[I64(1, 2), None, I64(2)]),
    "bilinear sizes": single("Resize", constants=[None, None, I64(2, 4, 11, 9)], mode="linear"),
    "bilinear scales": single("Resize", constants=[None, np.array([1, 1, 1.3, 2.6], np.float32)], mode="linear"),
    "bilinear aligned": single(
        "Resize", constants=[None, None, I64(2, 4, 11, 9)], mode="linear", coordinate_transformation_mode="align_corners"
    ),
    "nearest": single("Resize", constants=[None, np.array([1, 1, 2, 3], np.float32)]),
    "nearest floor": single(
        "Resize", constants=[None, np.array([1, 1, 1.5, 3], np.float32)], coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    ),
    "nearest of axes": single("Resize", constants=[None, np.array([2, 2], np.float32)], axes=[2, 3]),
    "upsample": single("Upsample", opset=9, constants=[np.array([1, 1, 2, 2], np.float32)]),
    "depth to space": single("DepthToSpace", blocksize=2),
    "depth to space crd": single("DepthToSpace", blocksize=2, mode="CRD"),
    "space to depth": single("SpaceToDepth", blocksize=2),
    "instance norm": single("InstanceNormalization", constants=[F32(4), F32(4)]),
    "layer norm": single("LayerNormalization", constants=[F32(8), F32(8)]),
    "expand": single("Expand", (1, 4, 1, 1), constants=[I64(3, 4, 5, 1)]),
    "dropout": single("Dropout"),
}


@pytest.mark.parametrize("name", SINGLE)
def test_each_operation_is_what_the_reference_says(tmp_path, name):
    model = SINGLE[name]
    size = [each.dim_value for each in model.graph.input[0].type.tensor_type.shape.dim]
    if len(size) != 4:  # a network's input has four dimensions
        model = onnx.ModelProto.FromString(model.SerializeToString())
        for each in [1] * (4 - len(size)):
            model.graph.input[0].type.tensor_type.shape.dim.add(dim_value=each)
        model.graph.node.insert(0, helper.make_node("Flatten", ["x"], ["flat"]))
        model.graph.node[1].input[0] = "flat"
        size += [1] * (4 - len(size))
    onnx.save(model, tmp_path / "one.onnx")
    x = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    expected = ReferenceEvaluator(model).run(None, {"x": x})
    with torch.no_grad():
        given = onnx_file.load(tmp_path / "one.onnx")[0](torch.from_numpy(x))
    given = list(given.values()) if isinstance(given, dict) else [given]
    assert len(given) == len(expected)
    for ours, theirs in zip(given, expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-5, rtol=1e-4)


BY_HAND = {  # where the reference implementation does not follow the specification
    "max pool padded": (
        single("MaxPool", kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
        lambda x: nn.functional.max_pool2d(nn.functional.pad(x, (1, 0, 1, 0), value=-torch.inf), 2, 1),
    ),
    "softmax of old": (single("Softmax", opset=11, axis=1), lambda x: torch.softmax(x.flatten(1), 1).reshape(x.shape)),
    "reflect": (
        single("Pad", opset=9, mode="reflect", pads=[0, 0, 1, 1, 0, 0, 1, 1]),
        lambda x: nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"),
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_each_operation_is_what_the_specification_says(tmp_path, name):
    model, expected = BY_HAND[name]
    onnx.save(model, tmp_path / "one.onnx")
    x = torch.randn(2, 4, 6, 8)
    torch.testing.assert_close(onnx_file.load(tmp_path / "one.onnx")[0](x), expected(x))


REFUSED = {
    "nearest": single("Resize", constants=[None, np.array([1, 1, 1.5, 2], np.float32)]),
    "linear and asymmetric": single("Upsample", opset=9, constants=[np.array([1, 1, 2, 2], np.float32)], mode="linear"),
    "training mode": single("BatchNormalization", constants=[F32(4), F32(4), F32(4), abs(F32(4))], outputs=3, training_mode=1),
    "a type that is no float": single("Cast", to=7),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_torch_does_otherwise_is_refused_by_name(tmp_path, said):
    onnx.save(REFUSED[said], tmp_path / "one.onnx")
    module, _ = onnx_file.load(tmp_path / "one.onnx")
    with pytest.raises(InputError, match=rf"^the ONNX operation {REFUSED[said].graph.node[0].op_type} \('the_one'\).*{said}"):
        import_module(module, torch.zeros(2, 4, 6, 8))


def test_all_operations_without_a_translation_are_named_with_their_count(tmp_path):
    nodes = [helper.make_node(kind, [f"v{index}"], [f"v{index + 1}"], domain=domain) for index, (kind, domain) in enumerate(
        [("Det", ""), ("Relu", ""), ("Hardmax", ""), ("Hardmax", ""), ("Magic", "com.example")]
    )]  # fmt: skip
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, 4, 4))
    graph = helper.make_graph(nodes, "g", [value("v0")], [value("v5")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "odd.onnx")
    with pytest.raises(InputError, match=r"odd.onnx has operations .* no translation of: Hardmax \(2\), (Det|com.example.Magic) \(1\), "):
        onnx_file.load(tmp_path / "odd.onnx")


def test_inputs_and_opsets_that_do_not_fit_are_refused(tmp_path):
    for model, said in [
        (single("Relu", (2, 6)), r"has the inputs x float \(2, 6\); threepc needs one, a float tensor \(N, C, H, W\)$"),
        (single("Relu", opset=6), r"is of opset 6; threepc reads opset 7 to "),
        (single("Relu", opset=4000), r"is of opset 4000; threepc reads opset 7 to "),
        (onnx.ModelProto(ir_version=9), r"is not an ONNX file, or a damaged one: it does not say of which opset it is$"),
        (
            single("DynamicQuantizeLinear", outputs=3),
            r": DynamicQuantizeLinear \(1\); the network was quantised: export it as it was before, ",
        ),
    ]:
        onnx.save(model, tmp_path / "one.onnx")
        with pytest.raises(InputError, match=said):
            onnx_file.load(tmp_path / "one.onnx")


def test_what_is_no_file_of_a_network_is_called_what_it_is(tmp_path):
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "folder.onnx").mkdir()
    for name, said in (
        ("empty", "is empty: nothing was written to it"),
        ("folder", "is a folder, and no ONNX file$"),
        ("none", "does not exist$"),
    ):
        with pytest.raises(InputError, match=rf"{name}\.onnx {said}"):
            load_model(str(tmp_path / f"{name}.onnx"))
    with (
        pytest.raises(InputError, match=r"^https://a\.b/net\.onnx is an address on the net"),
        threepc.local("https://a.b/net.onnx", torch.zeros(1, 3, 8, 8)),
    ):
        pass


def test_damaged_files_are_refused_in_a_line(tmp_path, residual):
    whole = export(residual, tmp_path / "whole.onnx").read_bytes()
    generator = np.random.default_rng(0)
    told = 0
    for damaged in [b"", b"\x80\x04.", whole[: len(whole) // 2], *(bytearray(whole) for _ in range(60))]:
        if isinstance(damaged, bytearray):
            for index in generator.integers(0, len(damaged), 4):
                damaged[index] = generator.integers(256)
        (tmp_path / "bad.onnx").write_bytes(damaged)
        try:
            module, (channels, height, width) = onnx_file.load(tmp_path / "bad.onnx")
            import_module(module, torch.zeros(1, channels or 3, height or 24, width or 24)[:, :, :64, :64])
        except InputError as error:
            told += 1
            assert "\n" not in str(error)
    assert told > 10


def test_weights_are_read_beside_the_file_and_nowhere_else(tmp_path, residual):
    folder = tmp_path / "model"
    folder.mkdir()
    model = onnx.load(export(residual, tmp_path / "whole.onnx"))
    onnx.save(model, folder / "a.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    images = torch.randn(1, 3, 24, 24)
    torch.testing.assert_close(onnx_file.load(folder / "a.onnx")[0](images), residual(images))
    (tmp_path / "secret").write_bytes((folder / "weights.bin").read_bytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret")
    for location in ("../secret", str(tmp_path / "secret"), "link.bin", "", ".", "absent.bin"):
        hostile = onnx.load(folder / "a.onnx", load_external_data=False)
        for tensor in hostile.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        (folder / "hostile.onnx").write_bytes(hostile.SerializeToString())
        with pytest.raises(InputError, match=r"hostile.onnx keeps weights in .*, which is no file beside it$"):
            onnx_file.load(folder / "hostile.onnx")


def test_an_onnx_file_is_a_config(tmp_path, residual):
    path = export(residual, tmp_path / "small.onnx")
    model = load_model(str(path))
    assert (model.name, model.weights_source, model.assumed_card) == ("small", "the weights of the file", True)
    assert model.example_shape == (1, 3, 24, 24) and "small.card.json" not in model.card_advice
    card = ModelCard("mine", Preprocessing((24, 24), (0.0,) * 3, (255.0,) * 3, resize="stretch"), classes=tuple("abcde"))
    (tmp_path / "small.card.json").write_text(card.to_json())
    model = load_model(str(path))
    assert model.card == card and not model.assumed_card
    with pytest.raises(InputError, match=r"small.onnx takes inputs \(C, H, W\) of \(3, 24, 24\), not \(3, 32, 32\)$"):
        load_model(str(path), size=(32, 32))
    with pytest.raises(InputError, match=r"small.onnx holds its own weights: give no checkpoint"):
        load_model(str(path), tmp_path / "a.pth")
    (tmp_path / "small.card.json").write_text("{}")
    with pytest.raises(InputError, match=r"small.card.json: model card: must be a JSON object"):
        load_model(str(path))


def test_a_file_that_leaves_its_size_open(tmp_path):
    path = export(nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), tmp_path / "open.onnx", size=(1, 20, 20),
                  input_names=["x"], dynamic_axes={"x": {0: "n", 2: "h", 3: "w"}})  # fmt: skip
    assert load_model(str(path)).example_shape == (1, 1, 224, 224)
    assert load_model(str(path), size=(30, 40)).example_shape == (1, 1, 30, 40)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **options):
        if name.partition(".")[0] == "onnx":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"^the package onnx is needed for this and is not installed: pip install 'threepc\[onnx\]'$"):
        onnx_file.load(tmp_path / "a.onnx")


def test_local_takes_the_file(tmp_path, residual):
    images = torch.randn(2, 3, 24, 24)
    with threepc.local(export(residual, tmp_path / "a.onnx"), images, transport="memory") as secure:
        torch.testing.assert_close(secure(images), residual(images), atol=0.005, rtol=0)
