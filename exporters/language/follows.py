"""Whether a written graph follows its source: ONNX Runtime answers the cases, and the answers are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.records.codec import encode
from modelwright.core.records.language import GRAPH_FILE, LanguageVerification, LogitsError
from modelwright.exporters.language.cases import Cases, make_cases, positions_of

TOLERANCE = 1e-4
"""Relative L2 error of logits that a case may have: float32 sums in another order give some 1e-6."""
LONG_CACHE_TOLERANCE = 1e-3
"""The same, where keys are random: scores are then far larger than of text, and so is what rounding does to them."""
_NEAR_TIE = 1e-4
"""Of the largest logit: where the source prefers its token by less, float32 decides between two."""
_HINT = "this is a fault of the exporter: report it with the folder's config.json"

Cache = Mapping[str, NDArray[np.float32]]
_PARTS = ("key", "value")


def compare_with_reference(
    directory: str, shape: dict[str, int], path: str, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Runs the cases through the graph and compares its answers with the source's.

    Args:
        directory: The exported model's.
        shape: The arguments of `make_cases`.
        path: What `compute_reference` wrote.
        progress: Takes the phase that begins.

    Returns:
        A `LanguageVerification`.

    Raises:
        BuildFailedError: The graph does not follow its source.
    """
    progress("comparing the graph with PyTorch")
    with np.load(path) as archive:
        reference = {name: archive[name] for name in archive.files}
    cases = make_cases(**shape)
    graph = Graph(_open_graph(Path(directory) / GRAPH_FILE), cases)
    found = encode(judge(compute_answers(graph, cases, reference["greedy"]), reference))
    assert isinstance(found, dict)
    return found


def compute_answers(graph: Graph, cases: Cases, greedy: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
    """Returns the logits of each case; each step is fed with the source's token."""
    answers = {}
    mask = np.ones_like(cases.prompt)
    answers["prefill"], cache = graph.run(cases.prompt, mask, positions_of(mask), graph.empty(1))
    steps = []
    for token in greedy[:-1]:
        mask = np.pad(mask, ((0, 0), (0, 1)), constant_values=1)
        logits, cache = graph.run(np.array([[token]]), mask, positions_of(mask)[:, -1:], cache)
        steps.append(logits[0, -1])
    answers["steps"] = np.stack(steps) if steps else answers["prefill"][0, -1:]
    mask = cases.batch_mask
    answers["batch"], cache = graph.run(cases.batch, mask, positions_of(mask), graph.empty(2))
    mask = np.pad(mask, ((0, 0), (0, 1)), constant_values=1)
    answers["batch step"], _ = graph.run(cases.batch[:, :1], mask, positions_of(mask)[:, -1:], cache)
    answers["batch"] = cases.without_padding(answers["batch"])
    mask = np.ones((1, cases.cached + 1), np.int64)
    last = np.array([[cases.context_length - 1]])
    answers["long cache"], _ = graph.run(cases.prompt[:, :1], mask, last, graph.long())
    return answers


def judge(answers: Mapping[str, NDArray[np.float32]], reference: Mapping[str, NDArray[Any]]) -> LanguageVerification:
    """Compares the answers of a graph with those of its source.

    Raises:
        BadInputError: The source's are not finite.
        BuildFailedError: They are further apart than float32 explains; names the case.
    """
    names = {
        "prefill": "a prompt and an empty cache",
        "steps": "each greedy step",
        "batch": "a batch with padding",
        "batch step": "a step of a batch with padding",
        "long cache": "the last position of the context",
    }
    cases = []
    for name, title in names.items():
        wanted, found = reference[name], answers[name]
        _require_finite(wanted, title)
        error = found.astype(np.float64) - wanted
        scale = max(float(np.linalg.norm(wanted.astype(np.float64))), 1e-30)
        cases.append(
            LogitsError(
                case=title,
                positions=int(np.prod(found.shape[:-1])),
                relative_l2_error=_finite(np.linalg.norm(error) / scale, title),
                tolerance=LONG_CACHE_TOLERANCE if name == "long cache" else TOLERANCE,
                max_abs_error=_finite(np.abs(error).max(), title),
            )
        )
    for case in cases:
        if case.relative_l2_error > case.tolerance:
            raise BuildFailedError(
                f"the graph does not follow PyTorch: on {case.case} its logits are off by "
                f"{case.relative_l2_error:.1e}, relatively, expected at most {case.tolerance:.0e}",
                hint=_HINT,
            )
    equal, near_tie = _compare_greedy(answers, reference)
    return LanguageVerification(
        by="transformers' PyTorch",
        cases=tuple(cases),
        greedy_tokens=len(reference["greedy"]),
        equal_tokens=equal,
        near_tie=near_tie,
    )


def _require_finite(wanted: NDArray[np.float32], title: str) -> None:
    """Refuses a source that itself answers nonsense: its export would do so too.

    Raises:
        BadInputError: Names the case.
    """
    if not np.isfinite(wanted).all():
        raise BadInputError(
            f"PyTorch itself gives logits that are not finite on {title}: weights of the model are not finite, or are "
            "so large that float32 overflows",
            hint="download the folder again; or save the model again from a training that did not diverge",
        )


def _compare_greedy(
    answers: Mapping[str, NDArray[np.float32]], reference: Mapping[str, NDArray[Any]]
) -> tuple[int, float | None]:
    """Returns how many tokens are the source's, and how near the tie was where they part.

    Up to there both were fed with the same tokens, so what follows is what each would have generated by itself.
    """
    greedy = reference["greedy"]
    steps = np.concatenate([answers["prefill"][0, -1:], answers["steps"]])[: len(greedy)]
    wanted = np.concatenate([reference["prefill"][0, -1:], reference["steps"]])[: len(greedy)]
    parted = np.flatnonzero(steps.argmax(axis=-1) != greedy)
    if not parted.size:
        return len(greedy), None
    first = int(parted[0])
    lead = wanted[first].max() - wanted[first][steps[first].argmax()]
    near = float(lead / max(float(np.abs(wanted[first]).max()), 1e-30))
    if near > _NEAR_TIE:
        raise BuildFailedError(
            f"the graph does not follow PyTorch: of {len(greedy)} greedy tokens number {first + 1} is one that PyTorch "
            f"puts {near:.1e} of its largest logit below its own",
            hint=_HINT,
        )
    return first, near


def _finite(value: Any, title: str) -> float:
    if not np.isfinite(value):
        raise BuildFailedError(f"the graph gives logits that are not finite on {title}", hint=_HINT)
    return float(value)


class Graph:
    """A graph that is asked with numpy arrays, whatever runs it.

    Args:
        run: Takes the inputs by name and gives the outputs by name.
        cases: Whose model it is.
    """

    def __init__(self, run: Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]], cases: Cases) -> None:
        self._run = run
        self._cases = cases

    def empty(self, batch: int) -> Cache:
        """Returns a cache without tokens."""
        _, heads, _, head_dim = self._cases.cache_shape
        nothing = np.zeros((batch, heads, 0, head_dim), np.float32)
        return {f"past_key_values.{layer}.{part}": nothing for layer in range(self._cases.layers) for part in _PARTS}

    def long(self) -> Cache:
        """Returns the long cache."""
        pairs = [(layer, self._cases.random_cache(layer)) for layer in range(self._cases.layers)]
        return {
            f"past_key_values.{layer}.{part}": value
            for layer, pair in pairs
            for part, value in zip(_PARTS, pair, strict=True)
        }

    def run(
        self, tokens: NDArray[np.int64], mask: NDArray[np.int64], positions: NDArray[np.int64], cache: Cache
    ) -> tuple[NDArray[np.float32], Cache]:
        """Returns the logits of each position, and the cache afterwards."""
        values = self._run(
            {
                "input_ids": tokens,
                "attention_mask": mask,
                "position_ids": positions,
                "num_logits": np.array([tokens.shape[1]]),
                **cache,
            }
        )
        logits = values.pop("logits")
        return logits, {name.replace("present.", "past_key_values."): value for name, value in values.items()}


def _open_graph(path: Path) -> Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]:
    """Loads a graph as it was written: nothing is fused or packed, which would take memory."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(outputs, session.run(None, feeds), strict=True))
