"""What runs on the device, with an interpreter that is scripted: names, layouts, dtypes, batches, state."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from modelwright.core.errors import ToolchainMissingError
from modelwright.core.records.signature import Signature
from modelwright.targets.contract import RunSettings
from modelwright.targets.tflite import session as interpret
from modelwright.targets.tflite.session import TfliteRunner, load_runtime
from modelwright.targets.tflite.target import TfliteFp32


class FakeInterpreter:
    """Takes `ids` int32 [n, 2] and `x` float32 [n, 4]; gives `sum` int32 [n] and `flat` float32 [n, 4].

    As strict as the real one: a tensor takes exactly its shape and dtype, and nothing runs before the allocation.
    """

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.calls: list[Any] = []
        self.allocated = False
        self.fails_to_allocate = False
        self.tensors: dict[int, Any] = {7: np.zeros((1, 2), np.int32), 9: np.zeros((1, 4), np.float32)}
        self.count = 0

    def get_input_details(self) -> list[dict[str, Any]]:
        # The file's order is not ONNX's.
        return [{"index": at, "dtype": self.tensors[at].dtype, "shape": self.tensors[at].shape} for at in (9, 7)]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [{"index": 20}, {"index": 21}]

    def resize_tensor_input(self, index: int, shape: list[int]) -> None:
        self.calls.append(("resize", index, list(shape)))
        self.tensors[index] = np.zeros(shape, self.tensors[index].dtype)
        self.allocated = False

    def allocate_tensors(self) -> None:
        if self.fails_to_allocate:
            raise RuntimeError("no memory")
        self.calls.append("allocate")
        self.allocated = True

    def set_tensor(self, index: int, value: Any) -> None:
        assert self.allocated
        if value.shape != self.tensors[index].shape or value.dtype != self.tensors[index].dtype:
            raise ValueError(f"Cannot set tensor: {value.dtype} {value.shape}")
        assert value.flags.c_contiguous
        self.tensors[index] = value.copy()

    def reset_all_variables(self) -> None:
        self.calls.append("reset")

    def invoke(self) -> None:
        assert self.allocated
        self.calls.append("invoke")
        self.tensors[20] = self.tensors[9] * 2
        self.tensors[21] = self.tensors[7].sum(axis=1, dtype=np.int32)

    def get_tensor(self, index: int) -> Any:
        return self.tensors[index].copy()


def make_binding(**changes: Any) -> dict[str, Any]:
    return {
        "reset_variables": False,
        "dynamic_batch": False,
        "splits_batch": False,
        "inputs": [
            {"name": "ids", "position": 1, "shape": [1, 2]},
            {"name": "x", "position": 0, "shape": [1, 4]},
        ],
        "outputs": [
            {"name": "sum", "position": 1, "shape": [1], "dtype": "int64", "scales_with_batch": [True]},
            {
                "name": "grid",
                "position": 0,
                "shape": [1, 2, 2],
                "dtype": "float32",
                "scales_with_batch": [True, False, False],
            },
        ],
        **changes,
    }


@pytest.fixture(autouse=True)
def _scripted_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpret, "load_runtime", lambda: (FakeInterpreter, "ai_edge_litert"))


def make_runner(**changes: Any) -> TfliteRunner:
    return TfliteRunner(Path("m.tflite"), make_binding(**changes), threads=3)


def make_feeds(batch: int, start: int = 0) -> dict[str, Any]:
    return {
        "x": (np.arange(batch * 4, dtype=np.float32) + start).reshape(batch, 4),
        "ids": (np.arange(batch * 2) + start).reshape(batch, 2),
    }


def test_file_and_threads_reach_the_interpreter() -> None:
    assert make_runner().interpreter.arguments == {"model_path": "m.tflite", "num_threads": 3}


def test_names_layouts_and_dtypes_are_those_of_onnx() -> None:
    outputs = make_runner().run(make_feeds(1, start=1))
    assert list(outputs) == ["sum", "grid"]
    np.testing.assert_array_equal(outputs["sum"], [3])
    assert outputs["sum"].dtype == np.int64
    np.testing.assert_array_equal(outputs["grid"], [[[2, 4], [6, 8]]])


def test_inputs_of_any_stride_and_wider_integers_are_taken() -> None:
    feeds = {"x": np.arange(8, dtype=np.float64).reshape(1, 8)[:, ::2], "ids": np.array([[5], [6]]).T}
    outputs = make_runner().run(feeds)
    np.testing.assert_array_equal(outputs["grid"], [[[0, 4], [8, 12]]])
    np.testing.assert_array_equal(outputs["sum"], [11])


def test_outputs_stay_what_they_were_after_the_next_run() -> None:
    runner = make_runner()
    first = runner.run(make_feeds(1))["grid"]
    kept = first.copy()
    runner.run(make_feeds(1, start=50))
    np.testing.assert_array_equal(first, kept)


def test_an_output_of_unknown_shape_is_given_as_it_is() -> None:
    binding = make_binding()
    binding["outputs"][1] |= {"shape": None, "dtype": None, "scales_with_batch": []}
    outputs = TfliteRunner(Path("m.tflite"), binding).run(make_feeds(1))
    assert outputs["grid"].shape == (1, 4)


@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_a_scalar_has_the_shape_that_the_file_has(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    class Scaled(FakeInterpreter):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.tensors[7] = np.zeros(shape, np.int32)

        def invoke(self) -> None:
            self.tensors[20], self.tensors[21] = self.tensors[9] * self.tensors[7], self.tensors[7]

    monkeypatch.setattr(interpret, "load_runtime", lambda: (Scaled, "ai_edge_litert"))
    binding = make_binding()
    binding["inputs"][0]["shape"] = []
    binding["outputs"][0] |= {"shape": [], "scales_with_batch": []}
    outputs = TfliteRunner(Path("m.tflite"), binding).run({"x": np.ones((1, 4), np.float32), "ids": np.int64(3)})
    np.testing.assert_array_equal(outputs["grid"], np.full((1, 2, 2), 3))
    assert outputs["sum"].shape == ()


# Batches


def test_a_resizable_file_runs_a_batch_at_once() -> None:
    runner = make_runner(dynamic_batch=True)
    runner.interpreter.calls.clear()
    outputs = runner.run(make_feeds(3))
    calls = [("resize", 7, [3, 2]), ("resize", 9, [3, 4]), "allocate", "invoke"]
    assert runner.interpreter.calls == calls
    np.testing.assert_array_equal(outputs["grid"], np.arange(0, 24, 2).reshape(3, 2, 2))
    np.testing.assert_array_equal(outputs["sum"], [1, 5, 9])
    runner.run(make_feeds(3))
    assert runner.interpreter.calls == [*calls, "invoke"], "the same batch is not allocated again"
    assert runner.run(make_feeds(1))["grid"].shape == (1, 2, 2)


def test_only_the_dimensions_that_scale_grow_with_the_batch() -> None:
    binding = make_binding(dynamic_batch=True)
    binding["outputs"][1] |= {"shape": [2, 1, 2], "scales_with_batch": [False, True, False]}
    assert TfliteRunner(Path("m.tflite"), binding).run(make_feeds(3))["grid"].shape == (2, 3, 2)


def test_sizes_that_vary_are_set_as_they_are_fed() -> None:
    binding = make_binding(dynamic_batch=True)
    binding["inputs"][1]["varies"] = [1]
    binding["outputs"][1] = {"name": "grid", "position": 0, "shape": None, "dtype": "float32", "order": [1, 0]}
    runner = TfliteRunner(Path("m.tflite"), binding)
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    outputs = runner.run({"x": x, "ids": np.zeros((2, 2), np.int64)})
    np.testing.assert_array_equal(outputs["grid"], 2 * x.T)
    with pytest.raises(ValueError, match=r"x has shape \[2, 6, 1\]; the file takes \['batch', 'any'\]"):
        runner.run({"x": x[..., None], "ids": np.zeros((2, 2), np.int64)})
    with pytest.raises(ValueError, match=r"ids has shape \[2, 3\]; the file takes \['batch', 2\]"):
        runner.run({"x": x, "ids": np.zeros((2, 3), np.int64)})


def test_a_file_of_fixed_shapes_splits_a_batch() -> None:
    runner = make_runner(splits_batch=True)
    runner.interpreter.calls.clear()
    outputs = runner.run(make_feeds(3))
    assert runner.interpreter.calls == ["invoke"] * 3
    np.testing.assert_array_equal(outputs["grid"], np.arange(0, 24, 2).reshape(3, 2, 2))
    np.testing.assert_array_equal(outputs["sum"], [1, 5, 9])


@pytest.mark.parametrize("mode", ["dynamic_batch", "splits_batch"])
def test_a_bound_batch_runs_whatever_ran_in_between(mode: str) -> None:
    runner = make_runner(**{mode: True})
    call = runner.bind(make_feeds(2, start=4))
    runner.run(make_feeds(5))
    runner.run(make_feeds(1))
    call()
    last = runner.interpreter.tensors[20][-1]
    np.testing.assert_array_equal(last, np.arange(8, 12) * 2)


def test_a_bound_call_hands_over_runs_reads_and_nothing_else() -> None:
    runner = make_runner()
    runner.interpreter.calls.clear()
    read: list[int] = []
    runner.interpreter.get_tensor = read.append
    call = runner.bind(make_feeds(1, start=3))
    assert runner.interpreter.calls == read == []
    call()
    assert runner.interpreter.calls == ["invoke"]
    np.testing.assert_array_equal(runner.interpreter.tensors[9], [[3, 4, 5, 6]])
    assert sorted(read) == [20, 21]


def test_a_failed_resize_is_not_taken_for_done() -> None:
    runner = make_runner(dynamic_batch=True)
    runner.interpreter.fails_to_allocate = True
    with pytest.raises(RuntimeError, match="no memory"):
        runner.run(make_feeds(3))
    runner.interpreter.fails_to_allocate = False
    assert runner.run(make_feeds(1))["grid"].shape == (1, 2, 2)


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("resets", [False, True])
def test_state_is_reset_before_every_inference_where_the_file_keeps_some(*, bound: bool, resets: bool) -> None:
    runner = make_runner(reset_variables=resets)
    runner.interpreter.calls.clear()
    feeds = make_feeds(1)
    call = runner.bind(feeds) if bound else lambda: runner.run(feeds)
    call()
    call()
    assert runner.interpreter.calls == (["reset", "invoke"] if resets else ["invoke"]) * 2


# Refusals


def test_an_absent_input_is_named() -> None:
    with pytest.raises(ValueError, match="ids is not given"):
        make_runner().run({"x": np.zeros((1, 4), np.float32)})


@pytest.mark.parametrize("mode", ["dynamic_batch", "splits_batch"])
@pytest.mark.parametrize("shape", [(1, 5), (4,), (0, 4), (1, 1, 4), (2, 2, 2)])
def test_a_wrong_shape_is_named_with_what_was_expected(mode: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"input x has shape .* takes \['batch', 4\]"):
        make_runner(**{mode: True}).run({**make_feeds(1), "x": np.zeros(shape, np.float32)})


def test_a_file_of_one_shape_takes_no_batch() -> None:
    with pytest.raises(ValueError, match=r"input ids has shape \[2, 2\]; the file takes \[1, 2\]"):
        make_runner().run(make_feeds(2))


@pytest.mark.parametrize("other", [1, 3])
def test_inputs_of_different_batches_are_refused(other: int) -> None:
    with pytest.raises(ValueError, match="different batch sizes"):
        make_runner(dynamic_batch=True).run({**make_feeds(2), "x": make_feeds(other)["x"]})


# The runtime


def block(monkeypatch: pytest.MonkeyPatch, **errors: ModuleNotFoundError) -> None:
    """Lets importing the named packages raise, whether they are installed or not."""
    real = builtins.__import__

    def import_or_raise(name: str, *rest: Any, **named: Any) -> Any:
        package = name.split(".")[0]
        if package in errors:
            raise errors[package]
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", import_or_raise)


def missing(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named '{name}'", name=name)


def test_the_old_runtime_serves_where_the_new_one_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    block(monkeypatch, ai_edge_litert=missing("ai_edge_litert"))
    old = ModuleType("tflite_runtime.interpreter")
    old.Interpreter = FakeInterpreter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tflite_runtime", ModuleType("tflite_runtime"))
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", old)
    assert load_runtime() == (FakeInterpreter, "tflite_runtime")


def load_failing(error: Exception, monkeypatch: pytest.MonkeyPatch) -> ToolchainMissingError:
    def fail() -> Any:
        raise error

    monkeypatch.setattr(interpret, "load_runtime", fail)
    opened = TfliteFp32().load(
        Path(), "m.tflite", {"binding": make_binding()}, Signature(inputs=(), outputs=()), RunSettings()
    )
    with pytest.raises(ToolchainMissingError) as caught, opened:
        pass
    return caught.value


def test_without_a_runtime_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    block(monkeypatch, **{name: missing(name) for name in ("ai_edge_litert", "tflite_runtime")})
    with pytest.raises(ModuleNotFoundError) as caught:
        load_runtime()
    shown = load_failing(caught.value, monkeypatch)
    assert "no TFLite runtime" in shown.message
    assert "ai-edge-litert" in str(shown.hint)


@pytest.mark.parametrize("error", [missing("flatbuffers"), ImportError("libstdc++.so.6: version not found")])
def test_a_broken_runtime_is_not_taken_for_an_absent_one(monkeypatch: pytest.MonkeyPatch, error: ImportError) -> None:
    shown = load_failing(error, monkeypatch)
    assert "does not import" in shown.message
    assert shown.detail == str(error)


def test_what_a_runtime_itself_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    block(monkeypatch, ai_edge_litert=missing("flatbuffers"))
    with pytest.raises(ModuleNotFoundError, match="flatbuffers"):
        load_runtime()
