"""Eager programs without the overhead of `torch.ops`: the same results, torch's own functions."""

from __future__ import annotations

import warnings

import pytest

from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.targets.pytorch import eager as pytorch_eager
from modelwright.targets.pytorch.eager import make_examples, restore_eager_speed

torch = pytest.importorskip("torch", reason="needs PyTorch")

SIGNATURE = Signature(
    inputs=(
        TensorSpec(name="x", dtype="float32", shape=("batch", 4, 8)),
        TensorSpec(name="ids", dtype="int64", shape=("batch", 4)),
    ),
    outputs=(),
)


class Mixed(torch.nn.Module):
    """An LSTM, an embedding, views, an index and a cast: operators of every kind of Python function."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = torch.nn.LSTM(8, 8, batch_first=True)
        self.embed = torch.nn.Embedding(10, 8)
        self.head = torch.nn.Linear(16, 3)

    def forward(self, x, ids):
        hidden, _ = self.lstm(x)
        both = torch.cat([hidden, self.embed(ids)], dim=-1)
        scores = self.head(torch.nn.functional.gelu(both)).permute(0, 2, 1)
        return scores[:, :, -1], scores.argmax(-1).to(torch.int32)


@pytest.fixture(scope="module")
def module():
    examples = (torch.randn(2, 4, 8), torch.zeros(2, 4, dtype=torch.int64))
    batch = torch.export.Dim("batch", min=1, max=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about the LSTM's flat weights
        program = torch.export.export(Mixed().eval(), examples, dynamic_shapes=({0: batch}, {0: batch}))
    return program.module(check_guards=False)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of the given module, which runs what torch has deprecated
def test_results_are_the_same_at_any_batch_and_operators_are_torchs_functions(module) -> None:
    examples = make_examples(torch, SIGNATURE, {"x": [1, 4, 8], "ids": [1, 4]}, "cpu")
    with torch.inference_mode():
        quick, how = restore_eager_speed(torch, module, examples)
        assert how == "torch's Python functions"
        assert quick is not module
        called = {node.target for node in quick.graph.nodes if node.op == "call_function"}
        left = {str(target) for target in called if isinstance(target, torch._ops.OpOverload)}
        assert left <= {"aten.sym_size.int"}, "what only asks for a size has no function of its own"
        for batch in (1, 5):
            inputs = (torch.randn(batch, 4, 8), torch.arange(batch * 4).reshape(batch, 4) % 10)
            for one, other in zip(module(*inputs), quick(*inputs), strict=True):
                assert one.dtype == other.dtype
                assert torch.equal(one, other)


def test_a_function_that_does_something_else_is_not_taken(module, monkeypatch: pytest.MonkeyPatch) -> None:
    find = pytorch_eager._find_function

    def confuse(torch, operator):
        return torch.relu if str(operator) == "aten.gelu.default" else find(torch, operator)

    monkeypatch.setattr(pytorch_eager, "_find_function", confuse)
    examples = make_examples(torch, SIGNATURE, {"x": [1, 4, 8], "ids": [1, 4]}, "cpu")
    kept, how = restore_eager_speed(torch, module, examples)
    assert kept is module
    assert how == "torch.ops: the results differed"


def test_one_that_takes_other_arguments_is_not_taken_either(module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytorch_eager, "_find_function", lambda torch, operator: torch.relu)
    examples = make_examples(torch, SIGNATURE, {"x": [1, 4, 8], "ids": [1, 4]}, "cpu")
    kept, how = restore_eager_speed(torch, module, examples)
    assert kept is module
    assert "TypeError" in how


def test_without_shapes_nothing_is_changed(module) -> None:
    assert make_examples(torch, SIGNATURE, {"x": [1, 4, 8]}, "cpu") is None
    assert restore_eager_speed(torch, module, None)[0] is module
