"""An ONNX file as a torch module: read as data, never run as code, with weights of the file's own or of files beside it.

What depends on no input, shapes above all, is worked out by ONNX's own reference implementation; the rest becomes torch operations, which
`threepc.graph.importer` then takes or refuses as those of any other module. The file is not trusted: it is a protocol buffer, and nothing in it is
unpickled.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn

from threepc.errors import InputError, missing
from threepc.images.card import ModelCard
from threepc.model.onnx_operations import NUMBERS, OPERATIONS, prepared

OLDEST_OPSET = 7
_FLOATS = (1, 10, 11)
"""ONNX's numbers for float, float16 and double."""
_STANDARD = ("", "ai.onnx")


class OnnxNode(nn.Module):
    """One operation of the file, with the operands that are its weights as parameters."""

    def __init__(self, node: Any, opset: int, constants: dict[int, np.ndarray]) -> None:
        """constants: the operands that depend on no input, by their place."""
        super().__init__()
        import onnx

        self.kind, self.opset, self.outputs = str(node.op_type), opset, len(node.output)
        self.attributes = {each.name: _text(onnx.helper.get_attribute_value(each)) for each in node.attribute}
        self._title = node.name or node.output[0]
        self._numbers: dict[int, np.ndarray] = {}
        for index, value in (prepared(self, constants) if constants else constants).items():
            if value.dtype.kind == "f" and self.kind not in NUMBERS:
                tensor = torch.from_numpy(np.array(value, np.float32))
                self.register_parameter(f"operand{index}", nn.Parameter(tensor, requires_grad=False))
            else:
                self._numbers[index] = value

    def forward(self, *operands: Any) -> Any:
        """operands: tensors or, where they follow from shapes alone, arrays, in the file's order; None where one of its own stands."""
        given = list(operands)
        for index, operand in enumerate(operands):
            if operand is None:
                given[index] = getattr(self, f"operand{index}", self._numbers.get(index))
        return OPERATIONS[self.kind](self, *given)

    def refuse(self, reason: str) -> NoReturn:
        """Raise InputError that names the operation."""
        raise InputError(f"the ONNX operation {self.kind} ({self._title!r}) {reason}")


class OnnxNetwork(nn.Module):
    """The file's graph: images (N, C, H, W) to its output, or to a dictionary of several by name."""

    def __init__(self, graph: Any, opset: int, constants: dict[str, np.ndarray], sequence: list[Any]) -> None:
        super().__init__()
        self._input = next(each.name for each in graph.input if each.name not in constants)
        self._outputs = [each.name for each in graph.output]
        self._constants, self._opset = constants, opset
        self._steps: list[tuple[Any, str]] = []
        for node in sequence:
            name = _unused(_module_name(node), {step[1] for step in self._steps})
            if node.op_type != "Shape":
                held = {index: constants[operand] for index, operand in enumerate(node.input) if operand in constants}
                self.add_module(name, OnnxNode(node, opset, held))
            self._steps.append((node, name))

    def forward(self, images: torch.Tensor) -> Any:
        """What the file computes."""
        values: dict[str, Any] = {self._input: images}
        for node, name in self._steps:
            operands = [values.get(operand) for operand in node.input]
            known: list[Any] = [self._constants.get(operand, value) for operand, value in zip(node.input, operands, strict=True)]
            if node.op_type == "Shape":
                results: Any = _shape(node, known[0])
            elif not any(isinstance(value, torch.Tensor) for value in known):
                results = _evaluate(node, self._opset, known)
            else:
                if node.op_type == "Reshape" and len(images) > 1 and len(known[0]) == len(images):
                    operands[1] = _of_each_image(known[1], known[0])
                results = getattr(self, name)(*operands)
            values |= zip(node.output, results if isinstance(results, (tuple, list)) else (results,), strict=False)
        outputs = {name: self._constants.get(name, values.get(name)) for name in self._outputs}
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))


def load(path: Path) -> tuple[nn.Module, tuple[int | None, ...]]:
    """The network of an ONNX file in evaluation mode, and its input's shape (C, H, W), each None where the file leaves it open.

    Raises InputError, in one line: no such file, damaged, weights elsewhere than beside it, other inputs than one float tensor (N, C, H, W),
    and every operation that threepc has no translation of, with its count.
    """
    try:
        import onnx
        from onnx import inliner
    except ImportError:
        raise missing("onnx") from None
    if not path.is_file():
        raise InputError(f"{path} is a folder, and no ONNX file" if path.is_dir() else f"{path} does not exist")
    try:
        if not path.stat().st_size:
            raise InputError(f"{path} is empty: nothing was written to it, or it was not downloaded")
        model = onnx.load_model(path, load_external_data=False)
        _load_weights_beside(model, path)
        model = inliner.inline_local_functions(model)
    except InputError:
        raise
    except Exception as error:  # of a damaged file onnx raises whatever the damage leads to
        raise InputError(f"{path} is damaged or not an ONNX file ({_line(error)})") from error
    graph, opset = model.graph, _opset(model, path)
    constants = _initial(graph, path)
    inputs = [each for each in graph.input if each.name not in constants]
    shape = _input_shape(inputs, path)
    try:
        sequence = _sequence(graph, opset, constants, path)
        network = OnnxNetwork(graph, opset, constants, sequence)
    except InputError as error:
        raise InputError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error
    except Exception as error:  # attributes of other types than ONNX has them
        raise InputError(f"{path} is damaged or no valid ONNX ({_line(error)})") from error
    return network.eval().requires_grad_(False), shape


def card_of(path: Path) -> ModelCard | None:
    """The model card beside MODEL.onnx, MODEL.card.json as `ModelCard.to_json` writes it; None where there is none."""
    beside = path.with_suffix(".card.json")
    if not beside.is_file():
        return None
    try:
        return ModelCard.from_json(beside.read_text())
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{beside}: {error}") from None


def _load_weights_beside(model: Any, path: Path) -> None:
    """Read tensors that are kept in other files, which must lie in the same folder, as files of it."""
    from onnx import external_data_helper

    for tensor in external_data_helper._get_all_tensors(model):
        if external_data_helper.uses_external_data(tensor):
            where = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            beside = path.parent / where
            if not where or Path(where).name != where or beside.is_symlink() or not beside.is_file():
                raise InputError(f"{path} keeps weights in {where!r}, which is no file beside it")
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))


def _opset(model: Any, path: Path) -> int:
    import onnx

    version = next((entry.version for entry in model.opset_import if entry.domain in _STANDARD), 0)
    newest = onnx.defs.onnx_opset_version()
    if not version:
        raise InputError(f"{path} is not an ONNX file, or a damaged one: it does not say of which opset it is")
    if not OLDEST_OPSET <= version <= newest:
        raise InputError(f"{path} is of opset {version}; threepc reads opset {OLDEST_OPSET} to {newest}")
    return int(version)


def _initial(graph: Any, path: Path) -> dict[str, np.ndarray]:
    from onnx import numpy_helper

    try:
        return {tensor.name: np.asarray(numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    except Exception as error:  # a tensor that is shorter than its shape, or of no type
        raise InputError(f"{path} is damaged: its weights cannot be read ({_line(error)})") from error


def _input_shape(inputs: list[Any], path: Path) -> tuple[int | None, ...]:
    said = [f"{each.name} {_type(each)}" for each in inputs]
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type not in _FLOATS or len(inputs[0].type.tensor_type.shape.dim) != 4:
        raise InputError(f"{path} has the inputs {', '.join(said) or 'none'}; threepc needs one, a float tensor (N, C, H, W)")
    return tuple(each.dim_value or None for each in inputs[0].type.tensor_type.shape.dim[1:])


def _type(value: Any) -> str:
    import onnx

    tensor = value.type.tensor_type
    sizes = ", ".join(str(each.dim_value or each.dim_param or "?") for each in tensor.shape.dim)
    return f"{onnx.TensorProto.DataType.Name(tensor.elem_type).lower()} ({sizes})"


def _sequence(graph: Any, opset: int, constants: dict[str, np.ndarray], path: Path) -> list[Any]:
    """The operations that depend on the input and that the outputs depend on, in order; constants gets what the others give."""
    wanted, live = {each.name for each in graph.output}, []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            live.append(node)
            wanted |= set(node.input)
    dependent, sequence, unknown = {each.name for each in graph.input if each.name not in constants}, [], Counter[str]()
    for node in reversed(live):
        if dependent & set(node.input):
            dependent |= set(node.output)
            sequence.append(node)
            if node.domain not in _STANDARD:
                unknown[f"{node.domain}.{node.op_type}"] += 1
            elif node.op_type not in OPERATIONS and node.op_type not in _OF_SHAPES:
                unknown[node.op_type] += 1
        else:
            constants |= zip(node.output, _evaluate(node, opset, [constants.get(operand) for operand in node.input]), strict=False)
    if unknown:
        counted = ", ".join(f"{kind} ({count})" for kind, count in unknown.most_common())
        quantised = any(part in kind for kind in unknown for part in _QUANTISED)
        cure = "; the network was quantised: export it as it was before, in floating point, which threepc rounds by itself" * quantised
        raise InputError(f"{path} has operations that threepc has no translation of: {counted}{cure}")
    return sequence


_QUANTISED = ("QuantizeLinear", "QLinear", "Integer")
"""What is in the names of operations on whole numbers that stand for real ones."""


_OF_SHAPES = frozenset(
    (
        "Shape",
        "ConstantOfShape",
        "Range",
        "Floor",
        "Ceil",
        "Equal",
        "Where",
        "Not",
        "Less",
        "Greater",
        "And",
        "Or",
        "Mod",
        "Tile",
        "ReduceProd",
    )
)
"""Operations that may stand where only shapes go in; on values they are refused when the network is traced."""


def _evaluate(node: Any, opset: int, operands: list[Any]) -> Any:
    """What an operation gives for arrays, by ONNX's reference implementation: a list of arrays."""
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    given = {name: np.asarray(value) for name, value in zip(node.input, operands, strict=True) if name}
    try:
        inputs = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), None) for name, value in given.items()]
        outputs = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in node.output if name]
        model = helper.make_model(helper.make_graph([node], "one", inputs, outputs), opset_imports=[helper.make_opsetid("", opset)])
        return ReferenceEvaluator(model).run(None, given)
    except Exception as error:  # whatever numpy says of operands that do not fit
        raise InputError(f"the ONNX operation {node.op_type} ({node.name!r}) on constants fails: {_line(error)}") from error


def _shape(node: Any, value: Any) -> np.ndarray:
    bounds = {each.name: each.i for each in node.attribute}
    return np.array(tuple(value.shape)[slice(bounds.get("start"), bounds.get("end"))], np.int64)


def _of_each_image(shape: Any, x: torch.Tensor) -> Any:
    """The shape of a reshape; where the file was made with one image and says 1 for its batch, the batch that there is."""
    if isinstance(shape, torch.Tensor) or shape.reshape(-1)[:1].tolist() != [1] or not (-1 in shape or shape.prod() < x.numel()):
        return shape
    return np.concatenate([[len(x)], shape[1:]])


def _module_name(node: Any) -> str:
    """A name of letters, digits and underscores; of torch's "/layer1/layer1.0/conv1/Conv" the parts that say something new."""
    parts = [part for part in node.name.split("/") if part]
    parts = [part for part, after in zip(parts, [*parts[1:], ""], strict=False) if not after.startswith(part)]
    return re.sub(r"\W+", "_", "_".join(parts)).strip("_") or node.op_type


def _unused(name: str, taken: set[str]) -> str:
    number, unused = 1, name
    while unused in taken or hasattr(nn.Module, unused):
        number, unused = number + 1, f"{name}_{number}"
    return unused


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _line(error: BaseException) -> str:
    """An error of somebody else's code in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
