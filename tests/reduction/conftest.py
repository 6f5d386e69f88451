"""The small graphs of tests/graph."""

from tests.graph.conftest import small_graph, wide_graph

__all__ = ["small_graph", "wide_graph"]
