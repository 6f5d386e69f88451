"""Networks as public graphs. Needs no torch; `importer` and `clear` do, and are imported by name."""

from threepc.graph.ir import KINDS, Graph, Node, Shape, Weights, check_weights, infer_shape, relu_names, weight_shape

__all__ = ["KINDS", "Graph", "Node", "Shape", "Weights", "check_weights", "infer_shape", "relu_names", "weight_shape"]
