"""What the user calls a source, told apart by name and content, without running or unpickling anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from modelwright.core.errors import BadInputError
from modelwright.core.records.compressed import COMPRESSED_PROGRAM, is_compressed_folder, load_compressed
from modelwright.core.samples.python_source import is_python, require_function
from modelwright.exporters.file_kinds import refuse_other_files
from modelwright.exporters.hub import name_snapshot
from modelwright.exporters.language.config import CONFIG_FILE
from modelwright.exporters.language.source import is_language_source
from modelwright.exporters.transformers.source import describe_inputs, is_transformers_folder

Kind = Literal["onnx", "pt2", "factory", "transformers"]

_FACTORY_HINT = "write a function that returns the nn.Module with its weights loaded, and give FILE.py:FUNCTION"
_OTHER_SUFFIXES = {
    ".pt": "a PyTorch checkpoint or script, which runs code when it is read",
    ".pth": "a PyTorch checkpoint, which runs code when it is read",
    ".ckpt": "a checkpoint, which runs code when it is read",
    ".bin": "weights without a network",
    ".safetensors": "weights without a network",
    ".tflite": "a TFLite model, which is an end product",
    ".engine": "a TensorRT engine, which is an end product",
    ".plan": "a TensorRT engine, which is an end product",
    ".h5": "a Keras model; convert it with tf2onnx",
    ".keras": "a Keras model; convert it with tf2onnx",
    ".pb": "a TensorFlow graph; convert it with tf2onnx",
    ".xml": "an OpenVINO model, which is an end product",
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """An FP32 model as the user named it.

    Attributes:
        text: As the user wrote it; of a model of a hub, its name and commit.
        kind: `onnx`, `pt2`, `factory` or `transformers`.
        path: The file; of a folder of transformers, its config.
        function: Of a factory.
    """

    text: str
    kind: Kind
    path: Path
    function: str | None = None

    @property
    def folder(self) -> Path:
        """Where its other files lie: Python resolves links to a module, ONNX looks beside the link."""
        return self.path.resolve().parent if self.kind == "factory" else self.path.parent.resolve()


def parse_source(source: str | Path) -> Source:
    """Tells what a source is and checks that it is there.

    Raises:
        BadInputError: No such file, not a source, or a Python file without the name of a function.
    """
    text = str(source)
    if is_python(text):
        path, function = require_function(text, "returns an nn.Module")
        return Source(text=text, kind="factory", path=path, function=function)
    path = Path(text)
    if path.is_dir():
        if is_compressed_folder(path):
            load_compressed(path)
            return Source(text=text, kind="pt2", path=path / COMPRESSED_PROGRAM)
        if is_transformers_folder(path) and not is_language_source(path):
            describe_inputs(path)
            return Source(text=name_snapshot(path) or text, kind="transformers", path=path / CONFIG_FILE)
        raise _explain_directory(path)
    if not path.exists():
        raise BadInputError(
            f"no such source: {text}", hint="give model.onnx, model.pt2 (torch.export.save) or FILE.py:FUNCTION"
        )
    if path.suffix == ".pt2":
        _require_content(path)
        return Source(text=text, kind="pt2", path=path)
    if is_language_source(path):
        raise _explain_language_model(path)
    if path.suffix == ".onnx":
        refuse_other_files(path)
        return Source(text=text, kind="onnx", path=path)
    what = _OTHER_SUFFIXES.get(path.suffix.lower(), "no kind of source that is known")
    raise BadInputError(f"{text} is {what}", hint=f"{_FACTORY_HINT}; or give model.onnx or model.pt2")


def _require_content(path: Path) -> None:
    """Refuses a `.pt2` that is no archive; what is inside is read in a child process."""
    if not path.is_file():
        raise BadInputError(f"{path} is not a regular file", hint="give a program that torch.export.save wrote")
    with path.open("rb") as file:
        start = file.read(64)
    if not start.startswith(b"PK\x03\x04"):
        found = (
            "empty"
            if not start
            else "a git-LFS pointer"
            if start.startswith(b"version https://git-lfs")
            else "something else"
        )
        hint = (
            "run `git lfs pull`" if "LFS" in found else "save the program again with torch.export.save(program, path)"
        )
        raise BadInputError(f"{path} is not a saved torch.export program: it is {found}", hint=hint)


def _explain_language_model(path: Path) -> BadInputError:
    return BadInputError(
        f"{path} is a language model, which is not taken here", hint="give it to `modelwright export` or `compare`"
    )


def _explain_directory(path: Path) -> BadInputError:
    models = sorted(found.relative_to(path).as_posix() for found in path.rglob("*.onnx"))[:5]
    if models:
        return BadInputError(f"{path} is a folder", hint=f"give one of the models in it: {', '.join(models)}")
    if is_language_source(path):
        return _explain_language_model(path)
    return BadInputError(f"{path} is a folder", hint="give model.onnx, model.pt2 or FILE.py:FUNCTION")
