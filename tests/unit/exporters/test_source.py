"""Telling sources apart, and files that only look like ONNX; no vendor package is needed."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from modelwright.core.errors import BadInputError
from modelwright.exporters.source import parse_source


def test_kinds(tmp_path: Path) -> None:
    code = tmp_path / "net.py"
    code.write_text("from elsewhere import borrowed\ndef create():\n    pass\nclass Net:\n    pass\nmade = 1\n")
    source = parse_source(f"{code}:create")
    assert (source.kind, source.path, source.function) == ("factory", code, "create")
    for name in ("Net", "borrowed", "made"):
        assert parse_source(f"{code}:{name}").function == name
    model = tmp_path / "m.onnx"
    model.write_bytes(b"\x08\x08\x12\x00rest")
    assert parse_source(model).kind == "onnx"


def test_python_file_without_a_function_lists_them(tmp_path: Path) -> None:
    code = tmp_path / "net.py"
    code.write_text("import os\nos.abort()  # the file must not be run\ndef create(): ...\ndef _hidden(): ...\n")
    for spec in (str(code), f"{code}:"):
        with pytest.raises(BadInputError) as caught:
            parse_source(spec)
        assert f"{code}:create" in (caught.value.hint or "")
        assert "_hidden" not in (caught.value.hint or "")
    with pytest.raises(BadInputError, match="no function missing"):
        parse_source(f"{code}:missing")
    code.write_text("def broken(:\n")
    with pytest.raises(BadInputError, match="not valid Python"):
        parse_source(f"{code}:broken")
    with pytest.raises(BadInputError, match="no such file"):
        parse_source("absent.py:create")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-LFS pointer"),
        (b"\x1c\x00\x00\x00TFL3\x00\x00", "TFLite"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"\n  <html><body>", "web page"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"hello, this is a text file\n", "text file"),
        (b'{"json": true}', "text file"),
        (b"\x40\x00\x00\x00\x00\x00\x00\x00{" + b"x" * 80, "safetensors"),
    ],
)
def test_files_that_are_not_onnx(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=text):
        parse_source(path)


def test_pytorch_checkpoint_named_onnx(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02.")
    with pytest.raises(BadInputError, match="PyTorch checkpoint"):
        parse_source(path)


@pytest.mark.parametrize("name", ["m.pth", "m.safetensors", "m.h5", "m.tflite", "m"])
def test_other_suffixes_say_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(BadInputError) as caught:
        parse_source(tmp_path / name)
    assert "FILE.py:FUNCTION" in (caught.value.hint or "")


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="folder"):
        parse_source(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["BertForMaskedLM"], "vocab_size": 9}')
    with pytest.raises(BadInputError) as caught:
        parse_source(tmp_path)
    assert "from_pretrained" in (caught.value.hint or "")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"x")
    with pytest.raises(BadInputError) as caught:
        parse_source(tmp_path)
    assert "onnx/model.onnx" in (caught.value.hint or "")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.pt2")
    with pytest.raises(BadInputError, match="is not a regular file"):
        parse_source(tmp_path / "m.pt2")


def test_pt2_must_be_an_archive(tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_bytes(b"\x80\x02 pickle")
    with pytest.raises(BadInputError, match=r"not a saved torch\.export program"):
        parse_source(tmp_path / "m.pt2")
