"""Programs that generate text with an artifact in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

from modelwright.targets.options import RunSettings
from modelwright.targets.pytorch.language.weights import SCALE_SUFFIX, WEIGHTS_FILE
from modelwright.targets.snippets import join_lines


def write_python(dtype: str, settings: RunSettings) -> str:
    """Returns the program; it is run in the artifact's folder with a prompt as its argument.

    Args:
        dtype: Of the weights, in torch's words.
        settings: How to run.
    """
    loading = [f'model = AutoModelForCausalLM.from_pretrained(".", dtype=torch.{dtype})']
    return _write(["from transformers import AutoModelForCausalLM, AutoTokenizer"], loading, settings)


def write_python_int8(settings: RunSettings) -> str:
    """Returns the program of an artifact whose matrices have 8 bits: PyTorch's own layers are made of them again."""
    imports = [
        "from safetensors.torch import load_file",
        "from torch.ao.nn.quantized.dynamic import Linear",
        "from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer",
    ]
    loading = [
        'model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained("."), dtype=torch.float32).eval()',
        f'tensors = load_file("{WEIGHTS_FILE}")',
        f'for name in [name[:-{len(SCALE_SUFFIX)}] for name in tensors if name.endswith("{SCALE_SUFFIX}")]:',
        f'    integers, scales = tensors.pop(name + ".weight"), tensors.pop(name + "{SCALE_SUFFIX}")',
        "    zeros = torch.zeros(len(scales), dtype=torch.int64)",
        "    weight = torch._make_per_channel_quantized_tensor(integers, scales, zeros, 0)",
        "    layer = Linear(weight.shape[1], weight.shape[0], dtype=torch.qint8)",
        '    layer.set_weight_bias(weight, tensors.pop(name + ".bias", None))',
        "    model.set_submodule(name, layer)",
        "places = {**dict(model.named_parameters()), **dict(model.named_buffers())}",
        "for name, value in tensors.items():",
        "    places[name].data = value",
    ]
    return _write(imports, loading, settings)


def _write(imports: Sequence[str], loading: Sequence[str], settings: RunSettings) -> str:
    return join_lines(
        "import sys",
        "",
        "import torch",
        imports,
        "",
        f"torch.set_num_threads({settings.threads})",
        'tokenizer = AutoTokenizer.from_pretrained(".")',
        loading,
        'tokens = tokenizer(sys.argv[1], return_tensors="pt")',
        'given = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}',
        "answer = model.generate(**given, max_new_tokens=20, do_sample=False)",
        "print(tokenizer.decode(answer[0, tokens.input_ids.shape[1] :], skip_special_tokens=True))",
    )
