"""A GGUF file becomes a folder of transformers: its weights as float32, tensor by tensor; for the child that has torch.

Config, tokenizer and the names of tensors are transformers' own reading of the file. What makes float32 of a tensor is
the `gguf` package, and the order of heads is put back as transformers does it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelwright.core.errors import BadInputError, ModelwrightError
from modelwright.core.files import hash_file
from modelwright.exporters.language.config import read_raw_config
from modelwright.exporters.language.kinds.table import require_known
from modelwright.exporters.language.safetensors_files import SINGLE_FILE, make_header

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAGIC = b"GGUF"


def make_folder(path: str, directory: str, progress: Callable[[str], None]) -> dict[str, Any]:
    """Writes a folder of transformers with what a GGUF file holds.

    Args:
        path: The GGUF file.
        directory: An empty folder.
        progress: Takes the phase that begins.

    Returns:
        `sha256` of the file.

    Raises:
        BadInputError: It is none, or of a kind that is not read.
        ToolchainMissingError: transformers or gguf is not installed.
    """
    source, out = Path(path), Path(directory)
    with source.open("rb") as file:
        start = file.read(len(_MAGIC))
    if start != _MAGIC:
        raise BadInputError(f"{source} is no GGUF file: it does not begin with GGUF", hint="download it again")
    progress("reading the GGUF file")
    _write_config(source, out)
    require_known(read_raw_config(out), source)
    progress("making float32 of its weights")
    _write_weights(source, out)
    return {"sha256": hash_file(source)}


def _write_config(source: Path, out: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    with _explain(source):
        config = AutoConfig.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)
        config.architectures = [AutoModelForCausalLM._model_mapping[type(config)].__name__]  # noqa: SLF001 - no other way
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        config.save_pretrained(out)
        tokenizer.save_pretrained(out)


@contextlib.contextmanager
def _explain(source: Path) -> Iterator[None]:
    """Words what transformers and gguf raise, which is whatever the file leads to."""
    try:
        yield
    except (ImportError, ModelwrightError):
        raise
    except Exception as error:
        raise BadInputError(
            f"{source} is not a GGUF file that transformers reads",
            hint="take the model's own folder, with config.json and safetensors, instead of the GGUF file",
            detail=str(error),
        ) from error


def _write_weights(source: Path, out: Path) -> None:
    """Writes the weights as float32 in safetensors, one tensor in memory at a time."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with _explain(source), torch.device("meta"):
        config = AutoConfig.from_pretrained(out, local_files_only=True)
        model = AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    header, places = make_header({name: ("F32", shape) for name, shape in shapes.items()})
    left = set(shapes)
    with _explain(source), (out / SINGLE_FILE).open("wb") as file:
        file.write(header)
        for name, weights in _read_tensors(source, model):
            if name not in left or weights.shape != shapes[name]:
                continue
            file.seek(places[name])
            np.ascontiguousarray(weights, np.float32).tofile(file)
            left.remove(name)
    if left:
        some = sorted(left)
        raise BadInputError(
            f"{source} lacks {len(left)} of the tensors that its kind of model has, or has them in other shapes: "
            f"{', '.join(some[:3])}",
            hint="take the model's own folder, with config.json and safetensors, instead of the GGUF file",
        )


def _read_tensors(source: Path, model: Any) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yields the name that transformers has for a tensor, and its values."""
    import gguf
    from transformers import modeling_gguf_pytorch_utils as reading

    reader = gguf.GGUFReader(source)
    kind = bytes(reader.fields["general.architecture"].parts[-1]).decode()
    processor = reading.TENSOR_PROCESSORS.get(kind, reading.TensorProcessor)(config=model.config.to_dict())
    names = reading.get_gguf_hf_weights_map(model, processor)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        read = processor.process(weights=values, name=tensor.name, tensor_key_mapping=names, parsed_parameters={})
        if read.name in names:
            yield names[read.name], read.weights
