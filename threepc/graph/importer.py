"""Import of a PyTorch network through torch.export: one Graph, public, and its weights, the server's.

The exported program is read as it is, in torch's own operations and in program order, so that a refusal names what the user wrote
and names follow modules. Operations in place are followed by hand (`_Tensor`); batch norms are folded in float64.
"""

import contextlib
import io
import logging
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, cast

import numpy as np
import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import TensorArgument

from threepc.errors import InputError
from threepc.graph.calls import Value, node_shape, pointwise
from threepc.graph.constants import Constants
from threepc.graph.deploy import deployed
from threepc.graph.fx_nodes import module_path, operation_name, operation_of, schema, torch_name, where
from threepc.graph.ir import Graph, Node, Weights, check_weights
from threepc.graph.kinds import infer_shape
from threepc.graph.modes import evaluating, outputs_of, require_traceable, why_untraceable
from threepc.graph.moves import moved_shape, simplified
from threepc.graph.operations import VIEWS
from threepc.graph.outputs import name_of
from threepc.graph.passes import fold_affine, fold_forward, sweep
from threepc.graph.refusals import NO_PROTOCOL, FollowsError, Refusals, RefusedError
from threepc.graph.returned import paths

_INPUT = "input"
_OUTPUT = "output"
# Checks that torch.export leaves in the program; they compute nothing.
_ASSERTIONS = frozenset({"_assert_tensor_metadata"})


def import_module(model: nn.Module, example: torch.Tensor) -> tuple[Graph, Weights]:
    """Trace a network and describe it as a Graph.

    Parameters: `model`, a module whose forward takes one float tensor and returns one (logits), or tuples, lists and dicts of such; itself
    unchanged on return; `example`, a float (N, C, H, W) tensor of the shape to be served; N is free later, C, H and W are fixed.

    Returns the graph and the float64 weights of its conv nodes. Nodes are named after modules: `layer1.0.conv1`, `layer1.0.relu/1`
    and `/2` for a module called twice, `layer1.0.add` for an operation written in the forward of `layer1.0`.

    Raises InputError, naming module and operation of all that has no secure protocol, or what the network's own forward raised.
    """
    require_traceable(model, "the model")
    if not isinstance(example, torch.Tensor) or example.dim() != 4 or not example.is_floating_point() or 0 in example.shape:
        raise InputError("the example input must be one float tensor (N, C, H, W), none of them 0")
    model = deployed(model, example)
    program = _export(model, example)
    importer = _Importer(model, program, len(example))
    graph, weights = sweep(*importer.run())
    affine = frozenset(importer.affine)
    graph, weights = fold_forward(*fold_affine(graph, weights, affine), affine)
    check_weights(graph, weights)
    return graph, weights


def _export(model: nn.Module, example: torch.Tensor) -> ExportedProgram:
    try:
        # Without gradients a torch.no_grad() block inside the network leaves no trace.
        with _silence(), evaluating(model):
            return torch.export.export(model, (example,))
    except InputError:
        raise
    except Exception as error:
        outputs_of(model, example)  # raises where the network fails by itself
        reason = why_untraceable(error)
        raise InputError(f"torch.export cannot trace the model on one tensor of shape {tuple(example.shape)}: {reason}") from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    # What torch.export warns of, logs and prints concerns its own internals; what matters of a failure is in the exception.
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@dataclass(eq=False)
class _Tensor:
    """A tensor object of the traced program: its current value, and all tensors that may share its memory.

    An operation in place gives the tensor a new value; what only may have changed with it has none any more (None) and cannot be read.
    """

    value: Value | None
    sharing: "list[_Tensor]" = field(default_factory=list)

    def view(self, value: Value) -> "_Tensor":
        other = _Tensor(value, self.sharing)
        self.sharing.append(other)
        return other

    def assign(self, value: Value) -> None:
        for other in self.sharing:
            other.value = None
        self.value = value


UNKNOWN = Value("", (1, 1, 1), ())
"""Stands for results of refused operations that are no tensors of images."""


class _Importer:
    """The state of one import: tensors seen so far and nodes made so far."""

    def __init__(self, model: nn.Module, program: ExportedProgram, batch: int) -> None:
        self.model = model
        self.program = program
        self.batch = batch
        # A module registered in several places goes by its first name, as in named_modules().
        self.paths = {id(module): path for path, module in model.named_modules()}
        self.tensors: dict[fx.Node, _Tensor] = {}
        self.parts: dict[fx.Node, list[Value]] = {}  # of operations that give several tensors
        self.moved: dict[tuple[Any, ...], Value] = {}
        self.nodes: list[Node] = []
        self.weights: Weights = {}
        self.affine: set[str] = set()
        self.constants = Constants(program)
        self.names = self._name_nodes()
        self.refusals = Refusals()

    def run(self) -> tuple[Graph, Weights]:
        results = self._results()
        live = _live(self.program.graph, [node for node, _ in results])
        for node in self.program.graph.nodes:
            if node.op == "placeholder" and node.name in self.program.graph_signature.user_inputs:
                shape = tuple(node.meta["val"].shape)
                self.nodes.append(Node(self.names[node], "input", (), shape[1:]))
                self._define(node, _Tensor(Value(self.names[node], shape[1:], shape)))
            elif node.op == "call_function" and node in live:
                self._convert_or_note(node)
        self.refusals.tell()
        for result, _ in results:
            if result not in self.tensors:
                raise InputError("the model returns a tensor that does not depend on its input")
        values = [self.done(self._read(result)) for result, _ in results]
        for value, (_, path) in zip(values, results, strict=True):
            self._add_output(value, path)
        return Graph(tuple(self.nodes)), self.weights

    def _add_output(self, value: Value, path: list[list[Any]]) -> None:
        ranks = (2, 3, 4) if value.shape[1:] == (1, 1) else (4,)
        if len(value.torch_shape) not in ranks:
            raise InputError(f"the model returns a tensor of shape {value.torch_shape}; threepc needs (N, C, H, W) or (N, C)")
        name, attrs = self.names[self.program.graph.output_node()], {} if value.resize is None else {"resize": value.resize}
        if path:
            name, attrs = f"{name}/{name_of(path)}", attrs | {"path": path}
        self.nodes.append(Node(name, "output", (value.node,), value.shape, attrs))

    def _results(self) -> list[tuple[fx.Node, list[list[Any]]]]:
        """The nodes of the tensors that the model returns, and the path to each."""
        signature = self.program.graph_signature
        returned = [spec.arg for spec in signature.output_specs if spec.kind.name == "USER_OUTPUT"]
        nodes, results = {node.name: node for node in self.program.graph.nodes}, []
        for argument, path in zip(returned, paths(self.program.call_spec.out_spec), strict=True):
            if not isinstance(argument, TensorArgument):
                raise InputError(f"the model returns {getattr(argument, 'value', 'no tensor')!r:.80}; it must return nothing but tensors")
            node = nodes[argument.name]
            if node.op == "placeholder" and node.name not in signature.user_inputs:
                raise InputError("the model returns one of its own parameters; it must return a tensor computed from its input")
            results.append((node, path))
        if not results:
            raise InputError("the model returns no tensor")
        return results

    def _convert_or_note(self, node: fx.Node) -> None:
        """A refusal is noted, and the import goes on with a result of which only the shape is known, so that all refusals are found."""
        try:
            self._convert(node)
        except RefusedError as error:
            self.refusals.add(error)
            self._define_unknown(node)
        except FollowsError:
            self._define_unknown(node)

    def _define_unknown(self, node: fx.Node) -> None:
        results = node.meta.get("val")
        shape = tuple(results.shape) if isinstance(results, torch.Tensor) else ()
        of_input = any(source in self.tensors for source in node.all_input_nodes)
        known = of_input and shape[:1] == (self.batch,) and len(shape) >= 2
        self._define(node, _Tensor(Value("", node_shape(shape[1:]), shape) if known else UNKNOWN))

    def _convert(self, node: fx.Node) -> None:
        call = _FxCall(self, node)
        operation = operation_of(node)
        if call.operation in _ASSERTIONS:
            return
        if not any(source in self.tensors for source in node.all_input_nodes):
            self.constants.evaluate(node, call)
            return
        of_self = self.tensors.get(node.all_input_nodes[0])
        if call.operation == "getitem" and (whole := node.all_input_nodes[0]) in self.parts:
            if (part := cast("int", node.args[1])) >= len(self.parts[whole]):
                call.refuse("of the places of maxima, which have no secure protocol")
            self.tensors[node] = self.tensors[whole].view(self.parts[whole][part])
            return
        if call.operation in ("getitem", "copy") and any(
            self.tensors[s].value is UNKNOWN for s in node.all_input_nodes if s in self.tensors
        ):
            call.follow()
        if operation is None:
            call.refuse(NO_PROTOCOL)
        value = operation.convert(call)
        if isinstance(value, list):
            self.parts[node] = [replace(part, name=f"{call.name}.{index}") for index, part in enumerate(value)]
            value = call.view(node.all_input_nodes[0])
        elif call.torch_shape[:1] != (self.batch,) or _cells(value) != math.prod(call.torch_shape[1:]):
            call.refuse(f"giving a tensor of shape {call.torch_shape}; threepc needs the batch as first dimension, and apart")
        if of_self is not None and schema(node).is_mutable:
            self.tensors[node] = of_self
            of_self.assign(value)
        elif of_self is not None and call.operation in VIEWS:
            self.tensors[node] = of_self.view(value)
        else:
            self._define(node, _Tensor(value))

    def _define(self, node: fx.Node, tensor: _Tensor) -> None:
        tensor.sharing.append(tensor)
        self.tensors[node] = tensor

    def resampled(self, value: Value) -> Value:
        """The value after its bilinear resize, by a node that does it, because more than the output follows."""
        height, width, aligned = cast("list[Any]", value.resize)
        shape, key = (value.shape[0], height, width), (value.node, str(value.resize))
        if value.node and key not in self.moved:
            sizes = zip((height, width), value.shape[1:], strict=True)
            rows, columns = ([] if new == old else ["linear", new, aligned, old / new] for new, old in sizes)
            self.nodes.append(Node(value.name, "resample", (value.node,), shape, {"rows": rows, "columns": columns}))
        self.moved.setdefault(key, Value(value.name if value.node else "", shape, value.torch_shape))
        return self.moved[key]

    def done(self, value: Value) -> Value:
        """The value by a node of the tensor's own shape, after all its moves. The same moves are made once."""
        if value.resize is not None:
            return value
        shape = node_shape(value.torch_shape[1:])
        if not value.node or (value.shape == shape and not value.moves):
            return replace(value, shape=shape, moves=())
        key = (value.node, shape, str(value.moves))
        if key not in self.moved:
            moves = simplified(value.shape, [*value.moves, ["reshape", list(shape)]])
            name = value.name or f"{value.node}.moved"
            self.nodes.append(Node(name, "gather", (value.node,), shape, {"moves": moves}))
            self.moved[key] = Value(name, shape, value.torch_shape)
        return replace(self.moved[key], torch_shape=value.torch_shape)

    def _read(self, node: fx.Node) -> Value:
        value = self.tensors[node].value
        if value is None:
            raise InputError(
                f"the result of {self.names[node]!r} is read after a tensor that shares its memory was changed in place; "
                "use the operation that is not in place"
            )
        return value

    def _name_nodes(self) -> dict[fx.Node, str]:
        """Names that do not depend on what is dead or folded: every call of a module or an operation counts."""
        inputs = self.program.graph_signature.user_inputs
        bases = {}
        for node in self.program.graph.nodes:
            if node.op == "placeholder" and node.name in inputs:
                bases[node] = _INPUT
            elif node.op == "call_function":
                bases[node] = self._base_name(node)
            elif node.op == "output":
                bases[node] = _OUTPUT
        total, seen, names = Counter(bases.values()), Counter[str](), {}
        for node, base in bases.items():
            seen[base] += 1
            names[node] = base if total[base] == 1 else f"{base}/{seen[base]}"
        return names

    def _base_name(self, node: fx.Node) -> str:
        module, operation = self.model.get_submodule(module_path(node)), operation_of(node)
        path: str = self.paths[id(module)]
        if operation is not None and path and isinstance(module, operation.modules):
            return path
        return ".".join(filter(None, (path, operation_name(node))))


class _FxCall:
    """`calls.Call` for one node of torch's graph."""

    def __init__(self, importer: _Importer, node: fx.Node) -> None:
        self._importer = importer
        self._node = node
        self.name = importer.names[node]
        self.operation = operation_name(node)
        result = node.meta.get("val")
        results = result if isinstance(result, (list, tuple)) else [result]
        self.torch_shapes = [tuple(one.shape) for one in results if isinstance(one, torch.Tensor)]
        self.torch_shape = self.torch_shapes[0] if isinstance(result, torch.Tensor) else ()
        self.dtype: torch.dtype | None = getattr(result, "dtype", None)
        self.arguments: dict[str, Any] = {}
        for index, argument in enumerate(schema(node).arguments if schema(node) else ()):
            default = argument.default_value if argument.has_default_value() else None
            self.arguments[argument.name] = node.args[index] if index < len(node.args) else node.kwargs.get(argument.name, default)

    def refuse(self, reason: str) -> NoReturn:
        raise RefusedError(where(module_path(self._node)), torch_name(self.operation), reason)

    def follow(self) -> NoReturn:
        raise FollowsError(f"{torch_name(self.operation)} of what was refused")

    def activation(self, argument: Any, rank: int | None = None) -> Value:
        value = self.view(argument)
        if rank is not None and len(value.torch_shape) != rank:
            self.refuse(f"on a tensor of shape {value.torch_shape}; threepc needs one of {rank} dimensions")
        return self.moved(value)

    def moved(self, value: Value) -> Value:
        return self._importer.done(value)

    def view(self, argument: Any) -> Value:
        if not isinstance(argument, fx.Node) or argument not in self._importer.tensors:
            self.refuse("with a constant or a parameter where threepc needs a tensor computed from the input")
        value = self._importer._read(argument)
        if value is UNKNOWN:
            self.follow()
        if value.resize is not None and (self.operation not in VIEWS or self.torch_shape != value.torch_shape):
            return self._importer.resampled(value)
        return value

    def integers(self, argument: Any) -> list[int] | None:
        tensor = self._importer.constants.get(argument)
        if tensor is None or tensor.dtype not in (torch.int64, torch.int32) or tensor.dim() != 1:
            return None
        numbers: list[int] = tensor.tolist()
        return numbers

    def fixed(self, argument: Any) -> np.ndarray | None:
        if isinstance(argument, (int, float)):
            return np.array(float(argument))
        tensor = self._importer.constants.get(argument)
        return None if tensor is None or tensor.is_complex() else tensor.detach().to(device="cpu", dtype=torch.float64).numpy().copy()

    def constant(self, argument: Any) -> np.ndarray | None:
        if argument is None:
            return None
        if isinstance(argument, fx.Node) and argument in self._importer.tensors and self._importer._read(argument) is UNKNOWN:
            self.follow()
        tensor = self._importer.constants.get(argument)
        if tensor is None:
            self.refuse("with a weight that depends on the input; only constant weights are supported")
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            self.refuse(f"with a weight of type {tensor.dtype} and layout {tensor.layout}; threepc needs dense floats")
        return tensor.detach().to(device="cpu", dtype=torch.float64).numpy().copy()

    def emit(self, kind: str, inputs: Iterable[Value], attrs: dict[str, Any] | None = None, part: str = "", **weights: np.ndarray) -> Value:
        importer, inputs, name = self._importer, list(inputs), "/".join(filter(None, (self.name, part)))
        channels = weights["weight"].shape[0] if weights else None
        try:
            shape = infer_shape(kind, [value.shape for value in inputs], attrs or {}, channels)
        except InputError as error:
            self.refuse(f"which threepc cannot do here: {error}")
        importer.nodes.append(Node(name, kind, tuple(value.node for value in inputs), shape, attrs or {}))
        if weights:
            made = part, tuple(value.shape for value in inputs), self.torch_shape[1:]
            importer.weights[name] = weights | {"weight": importer.constants.once(self, made, weights["weight"])}
        return Value(name, shape, self.torch_shape)

    def affine(self, x: Value, scale: np.ndarray, bias: np.ndarray, part: str = "") -> Value:
        value = self.emit("conv", [x], pointwise(groups=x.shape[0]), part, weight=scale[:, None, None, None], bias=bias)
        self._importer.affine.add(value.node)
        return value


def _cells(value: Value) -> int:
    if value.resize is not None:
        return value.shape[0] * int(value.resize[0]) * int(value.resize[1])
    return math.prod(moved_shape(value.shape, list(value.moves)))


def _live(graph: fx.Graph, results: list[fx.Node]) -> set[fx.Node]:
    """What the results depend on. An operation in place counts always: it may change a tensor that is read later."""
    pending = [*results, *(node for node in graph.nodes if schema(node) and schema(node).is_mutable)]
    live: set[fx.Node] = set()
    while pending:
        node = pending.pop()
        if node not in live:
            live.add(node)
            pending.extend(node.all_input_nodes)
    return live
