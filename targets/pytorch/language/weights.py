"""What an artifact of a language model holds: its config, and safetensors in the precision that they run in.

Matrices in 8 bits are those of PyTorch's dynamic quantization. That saves them pickled only, which nobody should have
to load: here the integers and their scales are plain tensors, and PyTorch's own layers are made of them again.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.targets.language.contract import StoredTensor
from modelwright.targets.readiness import require_import

WEIGHTS_FILE = "model.safetensors"
SCALE_SUFFIX = ".weight_scale"


def import_transformers() -> Any:
    """Imports transformers, without its progress bars.

    Raises:
        ToolchainMissingError: It is absent or broken.
    """
    transformers = require_import("transformers", "llm")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers


def read_source(folder: Path, dtype: Any) -> Any:
    """Returns transformers' own model of a folder. Code and pickles of the folder are never run.

    Raises:
        BuildFailedError: transformers cannot read it.
    """
    try:
        return _read_model(folder, dtype)
    except Exception as error:  # transformers raises whatever its parts raise
        raise BuildFailedError(
            f"transformers cannot read {folder}: {_first_line(error)}",
            hint="the ort-* and openvino-* targets run the exported model, which does not need it",
            detail=str(error),
        ) from error


def write_float(model: Any, directory: Path) -> None:
    """Writes config and weights as they are in memory, a tied table once."""
    safetensors = require_import("safetensors.torch", "llm")
    model.config.save_pretrained(directory)
    safetensors.save_model(model, str(directory / WEIGHTS_FILE), metadata={"format": "pt"})


def write_int8(torch: Any, transformers: Any, model: Any, directory: Path) -> int:
    """Quantizes the matrices of a float model, row by row, and writes config and weights.

    Returns:
        How many matrices have 8 bits.
    """
    linear_of_conv1d(torch, transformers, model)
    quantization = require_import("torch.ao.quantization", "torch")
    with _no_deprecations():
        rows = {torch.nn.Linear: quantization.per_channel_dynamic_qconfig}
        quantized = quantization.quantize_dynamic(model, rows, inplace=True)
    tensors: dict[str, Any] = {}
    matrices = dict(_find_quantized(quantized))
    for name, module in matrices.items():
        weight, bias = module.weight(), module.bias()
        tensors[f"{name}.weight"] = weight.int_repr()
        tensors[f"{name}{SCALE_SUFFIX}"] = weight.q_per_channel_scales()
        if bias is not None:
            tensors[f"{name}.bias"] = bias
    tensors |= {name: value for name, value in quantized.state_dict().items() if isinstance(value, torch.Tensor)}
    held = {name: value.detach().contiguous() for name, value in tensors.items() if not _is_packed(name, matrices)}
    model.config.save_pretrained(directory)
    safetensors = require_import("safetensors.torch", "llm")
    safetensors.save_file(held, str(directory / WEIGHTS_FILE), metadata={"format": "pt"})
    return len(matrices)


def list_tensors(path: Path) -> Iterator[StoredTensor]:
    """Yields the tensors of a file of safetensors, by its header.

    Raises:
        BadInputError: It is none.
    """
    safetensors = require_import("safetensors", "llm")
    try:
        with safetensors.safe_open(str(path), framework="np") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                part = file.get_slice(name)
                bits = int(re.sub(r"\D", "", part.get_dtype()) or 8)
                yield StoredTensor(name=name, size_bytes=math.prod(part.get_shape()) * bits // 8)
    except (safetensors.SafetensorError, OSError) as error:
        raise _refuse(path.parent, error) from error


def read_float(directory: Path, dtype: Any) -> Any:
    """Returns the model of an artifact.

    Raises:
        BadInputError: transformers cannot read it.
    """
    try:
        return _read_model(directory, dtype)
    except Exception as error:
        raise _refuse(directory, error) from error


def read_int8(torch: Any, transformers: Any, directory: Path) -> Any:
    """Returns the model of an artifact whose matrices have 8 bits.

    Raises:
        BadInputError: The files do not belong together.
    """
    safetensors = require_import("safetensors.torch", "llm")
    initialization = require_import("transformers.initialization", "llm")
    try:
        config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True)
        with initialization.no_init_weights():
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        linear_of_conv1d(torch, transformers, model)
        tensors = safetensors.load_file(str(directory / WEIGHTS_FILE))
        names = [name.removesuffix(SCALE_SUFFIX) for name in tensors if name.endswith(SCALE_SUFFIX)]
        with _no_deprecations():
            for name in names:
                model.set_submodule(name, _make_quantized(torch, name, tensors))
        places = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        for name, value in tensors.items():
            places[name].data = value
        missing = {name for name, _ in model.named_parameters()} - set(tensors)
    except Exception as error:
        raise _refuse(directory, error) from error
    if missing:
        raise _refuse(directory, KeyError(f"{WEIGHTS_FILE} has no {min(missing)}"))
    return model.eval()


def _make_quantized(torch: Any, name: str, tensors: dict[str, Any]) -> Any:
    integers, scales = tensors.pop(f"{name}.weight"), tensors.pop(f"{name}{SCALE_SUFFIX}")
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    weight = torch._make_per_channel_quantized_tensor(integers, scales, zeros, 0)  # noqa: SLF001 - the only maker
    dynamic = require_import("torch.ao.nn.quantized.dynamic", "torch")
    module = dynamic.Linear(weight.shape[1], weight.shape[0], dtype=torch.qint8)
    module.set_weight_bias(weight, tensors.pop(f"{name}.bias", None))
    return module


def linear_of_conv1d(torch: Any, transformers: Any, model: Any) -> None:
    """Puts linear layers in the place of GPT-2's, whose matrices lie the other way round: no quantizer knows those."""
    kind = transformers.pytorch_utils.Conv1D
    for name, module in [(name, each) for name, each in model.named_modules() if isinstance(each, kind)]:
        rows, columns = module.weight.shape
        linear = torch.nn.Linear(1, 1)
        linear.in_features, linear.out_features = rows, columns
        linear.weight = torch.nn.Parameter(module.weight.detach().t().contiguous(), requires_grad=False)
        linear.bias = torch.nn.Parameter(module.bias.detach(), requires_grad=False)
        model.set_submodule(name, linear)


def _read_model(folder: Path, dtype: Any) -> Any:
    transformers = import_transformers()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
    )
    return model.eval()


def _find_quantized(model: Any) -> Iterator[tuple[str, Any]]:
    dynamic = require_import("torch.ao.nn.quantized.dynamic", "torch")
    yield from ((name, each) for name, each in model.named_modules() if isinstance(each, dynamic.Linear))


def _is_packed(name: str, matrices: dict[str, Any]) -> bool:
    """Whether a tensor is one of those that PyTorch keeps beside a packed matrix."""
    owner, _, last = name.rpartition(".")
    return owner in matrices and last in {"scale", "zero_point"}


@contextmanager
def _no_deprecations() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch points to its successor, which has no kernels for a CPU this fast
        yield


def _refuse(directory: Path, error: Exception) -> BadInputError:
    return BadInputError(
        f"transformers cannot load {directory}: {_first_line(error)}",
        hint="build the artifact again with the versions that are installed",
        detail=str(error),
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
