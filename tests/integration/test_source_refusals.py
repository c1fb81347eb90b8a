"""What sources are refused for on the way to ONNX; then the hint is followed, and it helps. See `refusals/`."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from refusing import refused

from modelwright.core.errors import BadInputError
from modelwright.core.samples.materialize import materialize_samples
from modelwright.core.samples.sample_set import SampleRef
from modelwright.exporters import export
from modelwright.exporters.onnx.validate import validate_model
from modelwright.exporters.source import parse_source

FLOAT = TensorProto.FLOAT
SHAPE = ["batch", 4]


def save(path: Path, nodes: list[Any] | None = None, *, opset: int = 18, **kinds: Any) -> Path:
    """Saves a model from x to y, of a Relu unless told otherwise."""
    given, made = (kinds.get(name, FLOAT) for name in ("x", "y"))
    graph = helper.make_graph(
        nodes or [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", given, kinds.get("shape", SHAPE))],
        [helper.make_tensor_value_info("y", made, SHAPE)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def check(path: Path) -> Any:
    return validate_model(path, lambda _phase: None).signature


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tmp_path / "model.onnx")


# What is named.


def test_a_source_that_is_not_there_is_given_as_one_of_three(model: Path) -> None:
    hint = refused(lambda: parse_source(model.with_name("modle.onnx")), "no such source")
    assert re.findall(r"\S+\.onnx|\S+\.pt2|\S+:\w+", hint) == ["model.onnx", "model.pt2", "FILE.py:FUNCTION"]
    (model.parent / "net.py").write_text("def make(): ...\n")
    (model.parent / "model.pt2").write_bytes(b"PK\x03\x04")
    kinds = [parse_source(model.parent / name).kind for name in ("model.onnx", "model.pt2", "net.py:make")]
    assert kinds == ["onnx", "pt2", "factory"]


def test_a_folder_is_refused_with_the_models_in_it(model: Path) -> None:
    hint = refused(lambda: parse_source(model.parent), "is a folder")
    assert parse_source(model.parent / hint.removeprefix("give one of the models in it: ")).kind == "onnx"
    empty = model.parent / "empty"
    empty.mkdir()
    assert "give model.onnx" in refused(lambda: parse_source(empty), "is a folder")


@pytest.mark.parametrize("name", ["m.pth", "m.safetensors", "m.unknown"])
def test_what_is_no_source_is_given_as_a_factory_or_a_model(model: Path, name: str) -> None:
    (model.parent / name).write_bytes(b"x")
    hint = refused(lambda: parse_source(model.parent / name), "is ")
    assert "returns the nn.Module with its weights loaded, and give FILE.py:FUNCTION; or give model.onnx" in hint
    (model.parent / "net.py").write_text("def make(): ...\n")
    assert parse_source(f"{model.parent / 'net.py'}:make").kind == "factory"
    assert parse_source(model).kind == "onnx"


@pytest.mark.parametrize(
    ("content", "words", "told"),
    [
        (b"", "it is empty", "torch.export.save"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a git-LFS pointer", "git lfs pull"),
        (b"\x80\x02.", "it is something else", "torch.export.save"),
    ],
)
def test_what_is_no_saved_program_is_saved_again(tmp_path: Path, content: bytes, words: str, told: str) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "m.pt2"
    path.write_bytes(content)
    assert told in refused(lambda: parse_source(path), words)
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.ones(2, 4),)), path)
    assert parse_source(path).kind == "pt2"


@pytest.mark.parametrize("name", ["pipe.onnx", "pipe.pt2"])
def test_a_pipe_is_given_as_a_file(model: Path, name: str) -> None:
    os.mkfifo(model.parent / name)
    refused(lambda: parse_source(model.parent / name), "is not a regular file")
    (model.parent / name).unlink()
    (model.parent / name).write_bytes(model.read_bytes() if name.endswith("onnx") else b"PK\x03\x04")
    assert parse_source(model.parent / name)


@pytest.mark.parametrize(
    ("content", "words", "told"),
    [
        (b"", "is empty", "download or export it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-LFS pointer", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page", "give the ONNX file itself"),
    ],
)
def test_a_file_that_only_has_the_name_is_fetched(model: Path, content: bytes, words: str, told: str) -> None:
    real = model.read_bytes()
    model.write_bytes(content)
    assert told in refused(lambda: parse_source(model), words)
    model.write_bytes(real)
    check(Path(parse_source(model).path))


def test_a_checkpoint_called_onnx_gets_its_own_name(tmp_path: Path) -> None:
    """The hint names a program's suffix, under which the same file is taken."""
    path = tmp_path / "m.onnx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/archive_format", b"pt2")
    refused(lambda: parse_source(path), r"a torch\.export program \(call it \.pt2\)")
    assert parse_source(path.rename(tmp_path / "m.pt2")).kind == "pt2"


# What is in an ONNX file.


def test_a_damaged_model_is_exported_again(model: Path) -> None:
    real = model.read_bytes()
    model.write_bytes(real[:40])
    assert "export it again" in refused(lambda: check(model), "cut off or damaged")
    model.write_bytes(real.replace(b"Relu", b"\xff\xfelu"))
    assert "export it again" in refused(lambda: check(model), "is damaged: it holds names that are not text")
    model.write_bytes(real)
    check(model)


def test_an_input_without_a_rank_is_given_one_as_the_hint_writes(model: Path) -> None:
    save(model, shape=None)
    hint = refused(lambda: check(model), "input x has no shape")
    (code,) = re.findall(r"i\.CopyFrom\(.*\)$", hint)
    loaded = onnx.load(model)
    (entry,) = loaded.graph.input
    exec(code.replace("...", "4"), {"i": entry, "onnx": onnx})
    onnx.save(loaded, model)
    assert check(model).inputs[0].shape == ("batch", 4)


@pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN])
def test_types_that_numpy_lacks_are_cast(model: Path, kind: int) -> None:
    save(model, [helper.make_node("Cast", ["x"], ["y"], to=kind)], y=kind, opset=21)
    assert refused(lambda: check(model), "output y is") == "add a Cast to float32 behind it"
    inner = [helper.make_node("Cast", ["x"], ["z"], to=kind), helper.make_node("Cast", ["z"], ["y"], to=FLOAT)]
    save(model, [helper.make_node("Cast", ["x"], ["y"], to=FLOAT)], x=kind, opset=21)
    hint = refused(lambda: check(model), "input x is")
    assert hint == f"let the model take float32, and Cast that to {TensorProto.DataType.Name(kind).lower()} inside it"
    save(model, inner, opset=21)
    check(model)


def test_complex_numbers_are_taken_in_two_parts(model: Path) -> None:
    save(model, [helper.make_node("Identity", ["x"], ["y"])], x=TensorProto.COMPLEX64, y=TensorProto.COMPLEX64)
    assert "float32 with an axis of 2 at the end" in refused(lambda: check(model), "complex64")
    save(model, [helper.make_node("DFT", ["x"], ["y"], axis=1)], shape=["batch", 8, 2], opset=17)
    loaded = onnx.load(model)
    loaded.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(loaded, model)
    assert check(model).inputs[0].dtype == "float32"


def test_text_is_processed_outside(model: Path) -> None:
    nodes = [helper.make_node("StringNormalizer", ["x"], ["t"]), helper.make_node("Cast", ["t"], ["y"], to=FLOAT)]
    save(model, nodes, x=TensorProto.STRING)
    assert refused(lambda: check(model), "input x is string") == "do the text processing outside the model"
    check(save(model))


def test_a_graph_is_cut_before_a_sequence(model: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("SequenceConstruct", ["r"], ["s"])],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, SHAPE)],
        [helper.make_tensor_sequence_value_info("s", FLOAT, None)],
        value_info=[helper.make_tensor_value_info("r", FLOAT, SHAPE)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), model)
    assert "cut the graph before that node" in refused(lambda: check(model), "output s is sequence")
    onnx.utils.extract_model(str(model), str(model.with_name("cut.onnx")), ["x"], ["r"])
    assert [spec.name for spec in check(model.with_name("cut.onnx")).outputs] == ["r"]


def test_an_opset_of_the_future_is_exported_older(model: Path) -> None:
    save(model, opset=99)
    hint = refused(lambda: check(model), "has opset 99; onnx")
    (told,) = re.findall(r"(\d+) suits all targets", hint)
    check(save(model, opset=int(told)))


def test_custom_operators_are_left_out(tmp_path: Path) -> None:
    path = models.make_foreign_operator(tmp_path / "m.onnx")
    hint = refused(lambda: check(path), "cannot load")
    assert "com.example:Sorcery" in hint
    assert "export the model without them" in hint
    check(save(path))


def test_an_operator_that_its_opset_has_not_any_more_is_exported_again(model: Path) -> None:
    save(model, [helper.make_node("Upsample", ["x"], ["y"])])
    assert "export it again with operators and an opset" in refused(lambda: check(model), "cannot load")
    check(save(model))


# Where the result goes.


def test_the_name_of_the_result_is_one_that_the_hint_gives(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    (model.parent / "folder.onnx").mkdir()
    for out in ("result", "result.ort", ".", "folder.onnx"):
        hint = refused(lambda given=out: export(model, given), "is no name for an ONNX model|is a folder")
        told = Path(hint.rpartition(" ")[2])
        told.unlink(missing_ok=True)
        exported = export(save(Path("source.onnx")), told)
        assert exported.model_path.is_file()


def test_a_tolerance_is_positive(model: Path) -> None:
    out = model.with_name("o.onnx")
    for tolerance in (0.0, -1.0, float("nan")):
        hint = refused(lambda given=tolerance: export(model, out, tolerance=given), "makes no sense")
        (told,) = re.findall(r"such as (\S+)", hint)
    assert export(model, out, tolerance=float(told)).model_path == out


def test_an_export_is_compared_on_its_example_inputs_where_there_are_only_random_samples(model: Path) -> None:
    hint = refused(lambda: materialize_samples("random", None, model.parent / "made"), "need the model's signature")
    assert hint == "export without --samples"
    assert export(model, model.with_name("o.onnx")).signature.inputs


def test_what_lies_in_the_place_needs_overwrite_or_another_out(model: Path) -> None:
    out = model.with_name("o.onnx")
    out.write_bytes(b"mine")
    assert "another --out, or add --overwrite" in refused(lambda: export(model, out), r"o\.onnx exists")
    export(model, model.with_name("other.onnx"))
    export(model, out, overwrite=True)


def test_an_export_that_was_changed_is_replaced_or_left(model: Path) -> None:
    from modelwright.exporters.exporting import find_or_export

    out = model.with_name("o.onnx")
    export(model, out)
    out.write_bytes(b"mine")
    hint = refused(lambda: find_or_export(model, out, replace_own=True), "was changed after it was exported")
    assert "another --out, or add --overwrite" in hint
    find_or_export(model, model.with_name("other.onnx"), replace_own=True)
    find_or_export(model, out, replace_own=True, overwrite=True)


def save_with_data(path: Path, location: str) -> Path:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", FLOAT, SHAPE)],
        [numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save_model(made, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def test_a_data_file_of_the_same_name_is_moved_away(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    source = save_with_data(tmp_path / "source" / "m.onnx", "weights.bin")
    for folder in ("out", "other"):
        (tmp_path / folder).mkdir()
    mine = tmp_path / "out" / "weights.bin"
    mine.write_bytes(b"mine")
    hint = refused(lambda: export(source, tmp_path / "out" / "m.onnx"), "which no earlier export left")
    assert "in a folder of its own, or move that file away" in hint
    export(source, tmp_path / "other" / "m.onnx")
    mine.rename(tmp_path / "moved")
    export(source, tmp_path / "out" / "m.onnx")


def test_a_data_file_with_a_name_of_the_export_is_saved_under_another(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    source = save_with_data(tmp_path / "source" / "m.onnx", "result.onnx")
    out = tmp_path / "out" / "result.onnx"
    hint = refused(lambda: export(source, out), "has a data file of the name result.onnx")
    code = hint[hint.index("onnx.save_model(") :].replace("location=", "size_threshold=0, location=")
    exec(code, {"onnx": onnx, "model": onnx.load(source), "path": source})
    exported = export(source, out)
    assert set(exported.files) == {"result.onnx", "weights.bin"}


def test_samples_that_do_not_fit_a_model_are_told_before_it_is_loaded(tmp_path: Path) -> None:
    path = models.make_cnn(tmp_path / "m.onnx")
    samples = models.make_samples(tmp_path / "s.npz", count=8, labelled=False, x=(3, 12, 10))
    phases: list[str] = []
    with pytest.raises(BadInputError, match=r"x has the shape \[8, 3, 12, 10\]"):
        export(path, tmp_path / "out" / "m.onnx", samples=SampleRef(path=samples), progress=phases.append)
    assert "reading the ONNX file" in phases
    assert "loading in ONNX Runtime" not in phases
