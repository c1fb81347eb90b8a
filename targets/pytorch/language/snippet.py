"""A program that generates text with an artifact in PyTorch."""

from __future__ import annotations

from modelwright.targets.options import RunSettings
from modelwright.targets.snippets import join_lines


def write_python(dtype: str, settings: RunSettings) -> str:
    """Returns the program; it is run in the artifact's folder with a prompt as its argument.

    Args:
        dtype: Of the weights, in torch's words.
        settings: How to run.
    """
    return join_lines(
        "import sys",
        "",
        "import torch",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f"torch.set_num_threads({settings.threads})",
        'tokenizer = AutoTokenizer.from_pretrained(".")',
        f'model = AutoModelForCausalLM.from_pretrained(".", dtype=torch.{dtype})',
        'tokens = tokenizer(sys.argv[1], return_tensors="pt")',
        "answer = model.generate(**tokens, max_new_tokens=20, do_sample=False)",
        "print(tokenizer.decode(answer[0, tokens.input_ids.shape[1] :], skip_special_tokens=True))",
    )
