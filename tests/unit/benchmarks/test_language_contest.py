"""The contest of language models: its figures, its table and who is ahead by known answers; its process on fakes."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest

from modelwright.core.records.language_artifact import Estimate
from modelwright.harness.language.workload import Document
from modelwright.harness.results.statistics import SpeedRatio

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("generation.results")


def make_row(results: ModuleType, name: str, maker: str, bits: int, ratio: float, perplexity: float) -> object:
    increase = Estimate(value=perplexity / 20.0 - 1)
    return results.Row(
        name=name, maker=maker, bits=bits, speedup=SpeedRatio(ratio=ratio), perplexity=perplexity, increase=increase
    )


def make_result(results: ModuleType, rows: list[object], *, has_meaning: bool = True) -> msgspec.Struct:
    return results.ModelResult(
        model="m", parameters=10**6, baseline="torch-fp32", has_meaning=has_meaning, threads=2, new_tokens=20,
        opening_tokens=128, judged_tokens=2048, effort="e", revision="r", created="now", versions={}, rows=tuple(rows),
    )  # fmt: skip


def test_a_peer_is_ahead_where_it_beats_one_of_ours_on_both_and_no_other_does_as_well(results: ModuleType) -> None:
    rows = [
        make_row(results, "ort-int8", "modelwright", 8, 6.0, 20.2),
        make_row(results, "openvino-int8", "modelwright", 8, 5.0, 20.4),
        make_row(results, "ort-int4", "modelwright", 4, 9.0, 22.0),
        make_row(results, "beats both of eight bits", "peer", 8, 6.5, 20.1),
        make_row(results, "beats the second only, worse than the first", "peer", 8, 5.5, 20.3),
        make_row(results, "faster by less than can be told", "peer", 8, 6.1, 20.2),
        make_row(results, "faster, and writes worse", "peer", 8, 7.0, 20.5),
        make_row(results, "beats eight bits with four", "peer", 4, 8.0, 20.0),
    ]

    assert list(results.find_leaders(make_result(results, rows))) == [
        "beats both of eight bits of ort-int8, openvino-int8"
    ]


def test_the_table_says_who_is_ahead_and_why_cells_are_empty(results: ModuleType) -> None:
    rows = [
        make_row(results, "slow", "peer", 8, 1.5, 21.0),
        make_row(results, "fast", "modelwright", 8, 2.5, 20.0),
        results.Row(name="broken", maker="peer", reason="does not install: no wheel"),
    ]

    text = importlib.import_module("generation.table").show(make_result(results, rows))

    lines = text.splitlines()
    assert lines[2].startswith("| **fast** |")
    assert "+0.00 %" in lines[2]
    assert lines[3].startswith("| slow |")
    assert "+5.00 %" in lines[3]
    assert "Peers ahead on both: none." in lines
    assert lines[-1] == "- broken: does not install: no wheel"


def test_random_weights_have_no_perplexity(results: ModuleType) -> None:
    text = importlib.import_module("generation.table").show(
        make_result(results, [make_row(results, "a", "peer", 8, 1.5, 21.0)], has_meaning=False)
    )

    assert "perplexity" not in text
    assert "ahead" not in text


def test_every_token_but_the_first_of_a_text_counts_once(results: ModuleType, tmp_path: Path) -> None:
    quality = importlib.import_module("generation.quality")
    tokens = tuple(range(1000, 2300))
    texts = [Document(tokens=tokens, size_bytes=1), Document(tokens=(7, 8), size_bytes=1)]

    quality.write_windows(texts, 4096, tmp_path / "windows.json")

    windows = json.loads((tmp_path / "windows.json").read_text())
    counted = [token for window in windows for token in window["tokens"][window["first"] :]]
    assert counted == [*tokens[1:], 8]
    assert max(len(window["tokens"]) for window in windows) == 512


class Counting:
    """A runtime whose next token is always the last one and one more, at odds of 3 to 1 for each other."""

    words = 50

    def generate(self, prompt: list[int], count: int) -> object:
        greedy = importlib.import_module("generation.greedy")
        return greedy.decode(
            lambda tokens: self.score(tokens)[-1], lambda token: self.score([token])[-1], prompt, count
        )

    def score(self, tokens: list[int]) -> object:
        logits = np.zeros((len(tokens), self.words), np.float32)
        logits[np.arange(len(tokens)), np.asarray(tokens) + 1] = np.log(3.0)
        return logits


def test_costs_and_likeliest_tokens_are_those_of_the_counted_part(results: ModuleType) -> None:
    plain = importlib.import_module("generation.plain_generation")
    texts = [{"tokens": [1, 2, 3, 9], "first": 2}, {"tokens": [5, 6], "first": 1}]

    found = plain.score(Counting(), texts)

    total = 3.0 + (Counting.words - 1)
    assert found["costs"] == pytest.approx(-np.log([3 / total, 1 / total, 3 / total]))
    assert found["tops"].tolist() == [3, 4, 6]


def test_a_turn_has_as_many_tokens_as_were_asked_for(results: ModuleType) -> None:
    plain = importlib.import_module("generation.plain_generation")
    spec = {"prompts": [[1], [10, 11]], "openings": [[2, 3, 4]], "new_tokens": 4}

    told = plain.run_turn(Counting(), spec, 1)

    assert told["tokens"] == [12, 13, 14, 15]
    assert (told["prompt_tokens"], len(told["step_ns"]), told["opening_tokens"]) == (2, 3, 3)


FAKE = """
import json, sys
print("ready", flush=True)
for line in sys.stdin:
    if line.startswith("finish"):
        print(json.dumps({"peak_bytes": 7}), flush=True)
    elif "dies" in sys.argv[1]:
        sys.exit("no kernel for this")
    else:
        print(json.dumps({"prompt_tokens": 2, "first_ns": 5_000_000, "step_ns": [1_000_000] * 12,
                          "tokens": [1] * 13, "opening_ns": 9_000_000, "opening_tokens": 3}), flush=True)
"""


def test_an_entrant_whose_process_ends_is_out_with_its_last_line(
    results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fake.py").write_text(FAKE)
    hold, loops = (importlib.import_module(f"generation.{name}") for name in ("hold", "loops"))
    entrants = importlib.import_module("generation.entrants")
    effort = importlib.import_module("modelwright.harness.run.effort").Effort(name="e", rounds=6, window_s=0.0)

    class Faked(loops.GenerationLoop):
        def __init__(self, entrant: object, task: object, scratch: Path) -> None:
            command = [sys.executable, str(tmp_path / "fake.py")]
            loops.LineProcess.__init__(self, entrant.name, command, {}, scratch, {})  # type: ignore[attr-defined]
            self._turn = 0

    monkeypatch.setattr(hold, "GenerationLoop", Faked)

    def enter(name: str) -> object:
        return entrants.Entrant(
            name=name, maker="peer", runtime="r", bits=8, path=tmp_path, python=Path(sys.executable), identity="i",
            size_bytes=None, build_s=None,
        )  # fmt: skip

    found, peaks, failures = [enter("base"), enter("twin"), enter("dies")], {}, {}
    windows = hold._run_all(found, None, effort, tmp_path, peaks, failures)
    rows = {one.name: hold._make_row(one, windows, {}, "base", peaks.get(one.name), None) for one in found}

    assert failures == {"dies": "no kernel for this"}
    assert peaks == {"base": 7, "twin": 7}
    assert rows["twin"].speedup.ratio == pytest.approx(1.0)
    assert (rows["twin"].token_ms, rows["twin"].first_ms, rows["twin"].opening_ms) == (1.0, 5.0, 9.0)
    assert rows["dies"].speedup is None


def test_no_two_ways_of_peers_share_scores(results: ModuleType) -> None:
    peers = importlib.import_module("generation.peers")
    python = Path("/cache/environment-1/bin/python")

    found = [peers.identify(peer, "a model", python) for peer in peers.PEERS]

    assert len(set(found)) == len(peers.PEERS)
    assert peers.identify(peers.PEERS[0], "another model", python) not in found
    assert peers.identify(peers.PEERS[0], "a model", Path("/cache/environment-2/bin/python")) not in found


def test_sizes_leave_out_what_is_no_part_of_a_model(results: ModuleType, tmp_path: Path) -> None:
    entrants = importlib.import_module("generation.entrants")
    for name, size in (("model.onnx", 3), ("model.onnx.data", 40), ("tokenizer.json", 500), ("artifact.json", 6000)):
        (tmp_path / name).write_bytes(b"x" * size)

    assert entrants.measure_model(tmp_path) == 43
    assert entrants.measure_model(tmp_path / "model.onnx") == 3


@pytest.fixture(autouse=True)
def forget_modules() -> Iterator[None]:
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in {"generation", "contest"}]:
        del sys.modules[name]
