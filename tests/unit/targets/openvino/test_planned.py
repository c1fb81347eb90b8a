"""What of an OpenVINO graph is computed from the inputs, by which planned layers and their weights are told apart."""

from __future__ import annotations

from types import SimpleNamespace

from modelwright.targets.openvino.planned import _Graph


class Node:
    """A graph node with one output, as far as `_Graph` looks."""

    def __init__(self, kind: str, *sources: Node) -> None:
        self.kind, self.sources = kind, sources

    def get_type_name(self) -> str:
        return self.kind

    def get_name(self) -> str:
        return f"{self.kind}_{id(self)}"

    def input_values(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(get_node=lambda source=source: source) for source in self.sources]


def make_graph(*nodes: Node) -> _Graph:
    return _Graph(SimpleNamespace(get_ordered_ops=lambda: list(nodes)))


def test_what_is_made_of_constants_and_sizes_is_not_computed() -> None:
    x, stored = Node("Parameter"), Node("Constant")
    weight = Node("Multiply", Node("Convert", stored), Node("Constant"))
    size = Node("ShapeOf", x)
    shape = Node("Concat", size, stored)
    product = Node("MatMul", x, weight)
    shaped = Node("Reshape", product, shape)
    graph = make_graph(x, stored, weight.sources[0], weight.sources[1], weight, size, shape, product, shaped)
    assert [node.kind for node in graph.nodes if not graph.is_constant(node)] == ["Parameter", "MatMul", "Reshape"]
    assert graph.find_computed(product) == [x]
    assert graph.find_computed(shaped) == [product]
    assert graph.find_computed(weight) == []


def test_a_network_may_be_deeper_than_python_recurses() -> None:
    nodes = [Node("Parameter")]
    for _ in range(20_000):
        nodes.append(Node("Relu", nodes[-1]))
    graph = make_graph(*nodes)
    assert graph.find_computed(nodes[-1]) == [nodes[-2]]
