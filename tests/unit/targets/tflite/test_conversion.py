"""Which conversion is taken, with a scripted converter: the judge of the tool decides, by what the outputs are for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelwright.core.errors import BuildFailedError
from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.targets.contract import BuildRequest
from modelwright.targets.tflite import client, conversion
from modelwright.targets.tflite.answers import answer_in_batches
from modelwright.targets.tflite.conversion import convert, fix_signature

WEIGHTS = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
Answers = Callable[[Any], dict[str, Any]]


def right(x: Any) -> dict[str, Any]:
    return {"y": x @ WEIGHTS}


@pytest.fixture
def request_(tmp_path: Path) -> BuildRequest:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("n", 4)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 3)),),
    )
    np.savez(tmp_path / "s.npz", x=np.random.default_rng(1).standard_normal((80, 4)).astype(np.float32))
    tuning = open_samples(SampleRef(path=tmp_path / "s.npz", part="tuning"), signature)
    return BuildRequest(
        model_path=tmp_path / "m.onnx",
        signature=signature,
        directory=tmp_path,
        machine=Machine(name="box", architecture="x86_64", instruction_sets=frozenset(), cores=4),
        calibration=None,
        tuning=tuning,
        reference=[right(feeds["x"]) for feeds in tuning.feeds()],
        scratch=tmp_path,
        shared=tmp_path,
        progress=lambda line: None,
    )


class Converter:
    """Makes files whose answers are scripted: way -> what it answers. A way is any of `resizes`, `infinities`."""

    def __init__(self) -> None:
        self.orders: list[dict[str, Any]] = []
        self.ways: dict[str, Answers] = {}
        self.has_infinities = False
        self.can_resize = True

    def run_step(self, order: dict[str, Any], progress: Any) -> dict[str, Any]:
        self.orders.append(order)
        way = " ".join(name for name in ("resizes", "infinities") if order[name])
        binding = {"way": way, "dynamic_batch": order["resizes"] and self.can_resize}
        return {"file": order["file"], "binding": binding, "has_infinities": self.has_infinities, "notes": []}

    def answer(self, file: Path, binding: Mapping[str, Any], feeds: Iterable[Any], progress: Any) -> Iterator[Any]:
        assert file.parent.is_dir()
        for each in feeds:
            yield self.ways[binding["way"]](each["x"])

    @property
    def tried(self) -> list[str]:
        return [" ".join(name for name in ("resizes", "infinities") if order[name]) for order in self.orders]


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> Converter:
    made = Converter()
    monkeypatch.setattr(client, "run_step", made.run_step)
    monkeypatch.setattr(conversion, "answer", made.answer)
    return made


def test_a_right_file_is_taken_at_once_and_once(converter: Converter, request_: BuildRequest) -> None:
    converter.ways = {"resizes": right}
    made = convert(request_)
    assert converter.tried == ["resizes"]
    assert converter.orders[0]["shapes"] == {"x": [1, 4]}
    assert convert(request_) == made
    assert len(converter.orders) == 1


def test_a_file_that_is_wrong_in_batches_alone_is_not_resized(converter: Converter, request_: BuildRequest) -> None:
    def rolled(x: Any) -> dict[str, Any]:
        return right(np.roll(x, 1, axis=0))

    converter.ways = {"resizes": rolled, "": right}
    made = convert(request_)
    assert converter.tried == ["resizes", ""]
    assert not made["binding"]["dynamic_batch"]
    assert "one sample at a time; resized, it is wrong: output y" in made["notes"][0]


def test_a_file_that_does_not_run_is_a_wrong_one(converter: Converter, request_: BuildRequest) -> None:
    def fail(x: Any) -> dict[str, Any]:
        raise BuildFailedError("TFLite cannot run it", detail="no kernel")

    converter.ways = {"resizes": fail, "": right}
    assert "TFLite cannot run it: no kernel" in convert(request_)["notes"][0]


def test_infinities_are_kept_where_finite_numbers_are_wrong(converter: Converter, request_: BuildRequest) -> None:
    converter.has_infinities = True
    converter.ways = {"resizes": lambda x: {"y": right(x)["y"] * np.nan}, "resizes infinities": right}
    made = convert(request_)
    assert converter.tried == ["resizes", "resizes infinities"]
    assert made["binding"]["dynamic_batch"]
    assert made["notes"] == []


def test_a_model_that_comes_out_wrong_any_way_is_refused(converter: Converter, request_: BuildRequest) -> None:
    """The length counts: a cosine would be 1."""
    converter.ways = {"resizes": lambda x: {"y": right(x)["y"] * 100}, "": lambda x: {"y": right(x)["y"] * 100}}
    with pytest.raises(BuildFailedError, match="does not follow FP32: output y") as caught:
        convert(request_)
    assert converter.tried == ["resizes", ""]
    assert "ort-*" in str(caught.value.hint)


def test_what_is_equally_wrong_stays_resizable(converter: Converter, request_: BuildRequest) -> None:
    """Rounding that costs a little in every way is none of the batch's."""

    def rounded(x: Any) -> dict[str, Any]:
        return {"y": np.round(right(x)["y"] / 0.15) * np.float32(0.15)}

    converter.ways = {"resizes": rounded, "": rounded}
    made = convert(request_)
    assert converter.tried == ["resizes", ""]
    assert made["binding"]["dynamic_batch"]
    assert made["notes"] == []


def test_each_sample_of_a_batch_gets_its_part() -> None:
    feeds = [{"x": np.full((1, 2), number, np.float32)} for number in range(7)]

    def run(batches: Iterable[Any]) -> Iterator[Any]:
        for batch in batches:
            assert batch["x"].shape == (3, 2)
            yield {"y": batch["x"].sum(axis=1), "all": np.float32(5)}

    rows = list(answer_in_batches(run, feeds, 3))
    assert [row["y"].tolist() for row in rows] == [[0], [2], [4], [6], [8], [10]], "the seventh fills no batch"
    assert all(row["all"] == 5 for row in rows)


# What the file has fixed


def make_signature(inputs: dict[str, Any], outputs: dict[str, Any]) -> Signature:
    kinds = [
        [TensorSpec(name=n, dtype="float32", shape=shape) for n, shape in part.items()] for part in (inputs, outputs)
    ]
    return Signature(inputs=tuple(kinds[0]), outputs=tuple(kinds[1]))


def make_binding(inputs: list[Any], outputs: list[Any], **changes: Any) -> dict[str, Any]:
    ends = [[{"shape": shape, "scales_with_batch": None} for shape in part] for part in (inputs, outputs)]
    return {"dynamic_batch": False, "splits_batch": False, "inputs": ends[0], "outputs": ends[1], **changes}


def test_sizes_of_the_samples_are_told_and_those_that_follow_from_them() -> None:
    signature = make_signature({"x": ("n", 3, "h", "w")}, {"y": ("m", 8, "h // 2", "w"), "z": None})
    binding = make_binding([[1, 3, 64, 96]], [[1, 8, 32, 96], None], dynamic_batch=True)
    binding["outputs"][0]["scales_with_batch"] = [True, False, False, False]
    fixed, notes = fix_signature(signature, binding)
    assert fixed.inputs[0].shape == ("n", 3, 64, 96)
    assert fixed.outputs[0].shape == ("m", 8, 32, 96)
    assert fixed.outputs[1].shape is None
    assert notes == [
        "h fixed at 64, w fixed at 96, as in the samples: for another size, build it with samples of that size"
    ]
    binding |= {"dynamic_batch": False, "splits_batch": True}
    binding["outputs"][0]["scales_with_batch"] = None
    assert fix_signature(signature, binding)[0] == fixed, "a batch is run sample by sample"


def test_a_batch_that_the_file_does_not_take_is_told() -> None:
    signature = make_signature({"x": ("n", "length"), "state": (2, "n", 4), "rate": ()}, {"y": ("n", 1)})
    fixed, notes = fix_signature(signature, make_binding([[1, 512], [2, 1, 4], []], [[1, 1]]))
    assert [spec.shape for spec in fixed.inputs] == [(1, 512), (2, 1, 4), ()]
    assert fixed.outputs[0].shape == (1, 1)
    assert notes[0] == "n fixed at 1: the file takes one sample an inference"
    assert notes[1].startswith("length fixed at 512, as in the samples")


def test_a_model_without_varying_sizes_keeps_its_signature() -> None:
    signature = make_signature({"x": ("n", 4)}, {"y": ("n", 3)})
    binding = make_binding([[1, 4]], [[1, 3]], dynamic_batch=True)
    assert fix_signature(signature, binding) == (signature, [])
