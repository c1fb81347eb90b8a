"""Small studies of text models: texts that letters tell apart, and models with random weights."""

from __future__ import annotations

import csv
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from language_models import write_tokenizer

from modelwright.examples.text_energy.study import Asked

ROWS = 96


def write_texts(folder: Path) -> Path:
    """Writes texts of two classes, which their letters tell apart, and returns the folder."""
    draw = random.Random(3)
    folder.mkdir()
    for part, count in (("train", ROWS), ("test", ROWS // 2)):
        with (folder / f"{part}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "label"))
            for row in range(count):
                letters = ("abcdef", "uvwxyz")[row % 2]
                writer.writerow(("".join(draw.choices(letters, k=draw.randint(4, 20))), ("first", "second")[row % 2]))
    return folder


def make_encoder(folder: Path, *, classes: int = 0) -> Path:
    """Writes a BERT of random weights, with a head for so many classes, and returns its folder."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    config = BertConfig(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, pad_token_id=258, num_labels=classes or 2,
    )  # fmt: skip
    if classes:
        config.label2id = {"first": 0, "second": 1}
        config.id2label = {0: "first", 1: "second"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForSequenceClassification(config) if classes else BertModel(config)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def ask(model: Path, data: Path, **changes: Any) -> Asked:
    asked = Asked(
        model=model, data=data, devices=("cpu",), precisions=("fp32", "int8-dynamic"), runtimes=("ort",), batches=(1,),
        trials=1, threads=1, effort="quick", length=None, calibrate=512, fit=64, limit=40, seed=0,
    )  # fmt: skip
    return replace(asked, **changes)
