"""Results of language artifacts with chosen figures, for tests of what judges and shows them."""

from __future__ import annotations

import math

from modelwright.core.records.language import LanguageModel, LanguageSource
from modelwright.core.records.language_artifact import Estimate, LanguageProof, TextPart, Texts
from modelwright.core.records.machine import Machine
from modelwright.harness.language.record import LanguageComparison, LanguageRow, LanguageSettings
from modelwright.harness.results.record import Environment
from modelwright.harness.results.statistics import Latency, SpeedRatio

HASH = "0" * 64


def make_proof(increase: float, *, width: float = 0.0, limit: float | None = None) -> LanguageProof:
    """Returns a proof of an artifact whose perplexity is so far above FP32's 20."""
    return LanguageProof(
        tokens=2000,
        text_bytes=8000,
        window=512,
        perplexity=20 * (1 + increase),
        perplexity_fp32=20,
        increase=Estimate(value=increase, ci95=(increase - width, increase + width)),
        bits_per_byte=math.log2(20 * (1 + increase)) / 4,
        bits_per_byte_fp32=math.log2(20) / 4,
        divergence=Estimate(value=0.01),
        divergence_positions=1000,
        agreement=Estimate(value=0.9, ci95=(0.88, 0.92)),
        max_increase=limit,
        reference="torch-fp32",
        evaluation_sha256=HASH,
        host=Machine(name="this machine", architecture="x86_64", instruction_sets=frozenset({"avx2"}), cores=2),
        threads=1,
    )


def make_row(
    target: str, token_ms: float, speedup: float, increase: float, *, memory: int, limit: float | None = None
) -> LanguageRow:
    """Returns a measured row."""
    runtime, _, precision = target.partition("-")
    return LanguageRow(
        target=target,
        title=f"{target} title",
        runtime=runtime,
        precision=precision,
        is_float=precision == "fp32",
        status="measured",
        size_bytes=100_000_000,
        token_ms=Latency(p50=token_ms),
        tokens_per_s=1000 / token_ms,
        peak_memory_bytes=memory * 10**6,
        speedup=SpeedRatio(ratio=speedup, ci95=(speedup * 0.98, speedup * 1.02)),
        quality=make_proof(increase, width=0.002, limit=limit),
    )


def make_model() -> LanguageModel:
    """Returns the record of a small model."""
    return LanguageModel(
        architecture="LlamaForCausalLM",
        kind="llama",
        layers=2,
        hidden_size=8,
        intermediate_size=16,
        attention_heads=2,
        kv_heads=1,
        head_dim=4,
        vocab_size=32,
        context_length=64,
        sliding_window=None,
        tied_embeddings=True,
        bos_token_id=None,
        eos_token_ids=(1,),
        pad_token_id=None,
        num_parameters=32 * 8 + 2 * (8 * (2 * 8 + 2 * 4) + 3 * 8 * 16 + 16) + 8,
        opset=23,
        source=LanguageSource(kind="folder", path="tiny", sha256=HASH, files={}, weights_dtype="float32"),
        files={"model.onnx": HASH, "model.onnx.data": HASH},
        tokenizer_files={},
        size_bytes=1000,
        verification=None,
        verification_reason="made for a test",
        notes=(),
        versions={},
    )


def make_comparison(*rows: LanguageRow) -> LanguageComparison:
    """Returns a comparison that is not judged."""
    return LanguageComparison(
        run_id="test",
        timestamp="2026-01-01T00:00:00+00:00",
        model=make_model(),
        texts=Texts(evaluation=TextPart(path="text.txt", texts=3, tokens=2000, sha256=HASH)),
        environment=Environment(device="a machine, 2 cores"),
        profile="host",
        baseline="torch-fp32",
        settings=LanguageSettings(
            threads=2, new_tokens=20, prompts=4, batch=1, seed=0, effort="quick", launches=1, rounds=12
        ),
        rows=rows,
    )
