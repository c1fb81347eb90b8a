from __future__ import annotations

import pytest
from language_results import make_model
from msgspec.structs import replace

from modelwright.harness.language.weights import count_parameters, name_kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.embed_tokens.weight", "embedding"),
        ("model.embed_tokens.weight/scale", "embedding"),
        ("transformer.wte.weight", "embedding"),
        ("model.layers.0.self_attn.q_proj.weight.and_2_more", "attention"),
        ("transformer.h.0.attn.c_attn.weight", "attention"),
        ("model.layers.0.self_attn.q_proj.bias", "norms and biases"),
        ("model.layers.3.self_attn.q_norm.weight", "norms and biases"),
        ("model.layers.2.input_layernorm", "norms and biases"),
        ("transformer.h.0.ln_1.weight", "norms and biases"),
        ("transformer.wpe.weight", "norms and biases"),
        ("model.layers.1.mlp.down_proj", "feed-forward"),
        ("transformer.h.0.mlp.c_fc.weight", "feed-forward"),
        ("lm_head.weight", "head"),
        ("rope.cos", "graph and tables"),
        ("integers_-1_576", "graph and tables"),
    ],
)
def test_a_tensor_belongs_to_the_kind_that_its_name_says(name: str, kind: str) -> None:
    assert name_kind(name) == kind


def test_parameters_by_the_models_shape() -> None:
    model = make_model()
    counted = count_parameters(model)
    assert counted == {
        "embedding": 32 * 8,
        "attention": 2 * 8 * (2 * 8 + 2 * 4),
        "feed-forward": 2 * 3 * 8 * 16,
        "head": 0,
        "norms and biases": 2 * 16 + 8,
    }
    untied = replace(model, tied_embeddings=False, num_parameters=model.num_parameters + 32 * 8)
    assert count_parameters(untied) == {**counted, "head": 32 * 8}
