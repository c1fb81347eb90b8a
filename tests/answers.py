"""Answers of made-up models of every kind, what quantization does to them, and their comparison by task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.outputs.tasks.judge import TaskFidelity, TaskMeter
from modelwright.core.outputs.tasks.roles import Outputs, find_roles

Array = npt.NDArray[Any]
COUNT = 160


def compare_by_task(reference: Sequence[Outputs], candidate: Sequence[Outputs]) -> TaskFidelity:
    """Compares equally long sequences of outputs, by the roles that are found in the reference."""
    meter = TaskMeter(find_roles(reference))
    for expected, found in zip(reference, candidate, strict=True):
        meter.add(expected, found)
    return meter.result()


def compare(expected: Array, found: Array, name: str = "output") -> TaskFidelity:
    """Compares [samples, ...] arrays as outputs of single samples."""
    return compare_by_task([{name: row[None]} for row in expected], [{name: row[None]} for row in found])


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def make_logits(classes: int = 10, rows: int = COUNT, rare: float = 0.0) -> Array:
    """Logits as cross-entropy leaves them: their sum stands still."""
    generator = rng()
    chosen = generator.integers(0, classes, rows)
    if rare:
        chosen = (generator.random(rows) < rare).astype(np.int64)
    logits = generator.normal(0, 1, (rows, classes))
    logits[np.arange(rows), chosen] += generator.uniform(2, 8, rows)
    return np.asarray(logits - logits.mean(axis=1, keepdims=True))


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def add_noise(values: Array, share: float) -> Array:
    """Adds noise of a share of the variation of each channel (the last axis but one of images, the last of rows)."""
    spread = values.std(axis=0, keepdims=True)
    return np.asarray(values + rng().normal(0, 1, values.shape) * spread * share**0.5)


def make_detector(rows: int = 120, classes: int = 3) -> Array:
    """[samples, rows, 4 + classes]: centre, width, height in pixels, one probability a class."""
    generator = rng()
    centre = np.stack(np.meshgrid(np.arange(12) * 16.0, np.arange(10) * 16.0), -1).reshape(-1, 2)[:rows]
    boxes = np.concatenate([centre, np.full((rows, 2), 30.0)], axis=1)[None] + generator.normal(0, 2, (COUNT, rows, 4))
    scores = generator.uniform(0, 0.02, (COUNT, rows, classes))
    for sample in range(COUNT):
        for _ in range(4):
            scores[sample, generator.integers(rows), generator.integers(classes)] = generator.uniform(0.4, 0.95)
    return np.concatenate([boxes, scores], axis=2)


def rank_detections(values: Array, most: int = 50) -> Array:
    """[samples, most, 6]: corners, score, class, the best first."""
    ranked = []
    for rows in values:
        scores = rows[:, 4:].max(axis=1)
        order = np.argsort(-scores)[:most]
        half = rows[order, 2:4] / 2
        corners = np.concatenate([rows[order, :2] - half, rows[order, :2] + half], axis=1)
        ranked.append(np.c_[corners, scores[order], rows[order, 4:].argmax(axis=1)])
    return np.array(ranked)


def make_segmentation() -> Array:
    """[samples, 4, 24, 24] logits; class 3 covers one pixel in fifty."""
    generator = rng()
    logits = np.repeat(np.repeat(generator.normal(0, 3, (COUNT, 3, 6, 6)), 4, axis=2), 4, axis=3)
    small = np.where(generator.random((COUNT, 1, 24, 24)) < 0.02, 12.0, -12.0)
    return np.concatenate([logits, small], axis=1)


def make_soft_mask(border_noise: float) -> Array:
    """[samples, 1, 24, 24] probabilities of a text detector; nothing is ever in the first row."""
    generator = rng()
    inside = np.repeat(np.repeat(generator.random((COUNT, 1, 6, 6)) > 0.7, 4, axis=2), 4, axis=3)
    values = np.where(inside, 0.97, 0.01) + generator.normal(0, 0.003, inside.shape)
    values[:, :, 0] = 0.001 + np.random.default_rng(8).uniform(0, border_noise, values[:, :, 0].shape)
    return np.clip(values, 0, 1)


def kill(values: Array, channel: Any, value: float | None = None) -> Array:
    broken = values.copy()
    broken[channel] = broken[channel].mean() if value is None else value
    return broken


def round_to(values: Array, step: float) -> Array:
    return np.asarray(np.round(values / step) * step)


def make_embedding() -> Array:
    """Unit vectors about a common direction, as sentence encoders give them."""
    values = rng().normal(0, 1, (COUNT, 64)) + 4 * np.ones(64)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def make_body() -> Array:
    """17 key points [n, 17, 2] of somebody upright in the middle: they swing about their mean, the head on top."""
    places = np.linspace(1.0, -1.0, 17)[:, None] + rng().normal(0, 0.05, (COUNT, 17, 2))
    return places - places.mean(axis=1, keepdims=True)


def make_units() -> Array:
    """[samples, 3]: metres, degrees, and a small rate."""
    return rng().normal(0, 1, (COUNT, 3)) * [1000.0, 90.0, 0.01] + [5000.0, 0.0, 0.5]


def make_constant(error: float) -> Array:
    values = np.concatenate([rng().normal(0, 1, (COUNT, 2)), np.ones((COUNT, 1))], axis=1)
    return np.asarray(values + np.array([0.0, 0.0, error]))


def make_grid(noise: float) -> Array:
    grid = np.stack(np.meshgrid(np.arange(16) * 20.0, np.arange(16) * 20.0))[None]
    motion = rng().normal(0, 3, (COUNT, 2, 16, 16))
    return grid + motion + np.random.default_rng(8).normal(0, 3, motion.shape) * noise**0.5


def make_masked(mask: float, noise: float = 0.0) -> Array:
    values = make_logits(12)
    values = values + np.random.default_rng(8).normal(0, 1, values.shape) * noise * values.std()
    return np.where(np.arange(12)[None] >= np.random.default_rng(9).integers(6, 12, (COUNT, 1)), mask, values)


def make_rare() -> Array:
    return softmax(make_logits(2, 1000, rare=0.024))


def make_rare_lost() -> Array:
    values = make_rare()
    found = np.flatnonzero(values[:, 1] > 0.5)
    values[found[::2]] = [0.9, 0.1]
    return values


def make_map() -> Array:
    return rng().normal(0, 1, (COUNT, 5, 12, 12)) + np.arange(5)[None, :, None, None]


def to_float16(values: Array) -> Array:
    with np.errstate(over="ignore"):
        return values.astype(np.float16)


def make_padded() -> Array:
    """[samples, 9, 6] logits of positions; those after each sample's end are zeros."""
    values = make_logits(6, COUNT * 9).reshape(COUNT, 9, 6)
    return np.where(np.arange(9)[None, :, None] < rng().integers(3, 9, (COUNT, 1, 1)), values, 0.0)


def make_close() -> Array:
    """Probabilities of labels, of which several are nearly sure."""
    return np.asarray(1 / (1 + np.exp(-rng().normal(4, 2, (COUNT, 20)))))


def make_same() -> Array:
    return np.repeat(make_logits()[:1], COUNT, axis=0)


def make_settled(order: int) -> Array:
    """Logits of a network that answers everything alike, in float32: what varies are last bits, by their order."""
    offsets = rng().normal(0, 0.02, 50)
    offsets[3] = 1e-5
    return np.asarray(offsets + np.random.default_rng(order).normal(0, 1e-8, (COUNT, 50)))


def make_zero(error: float) -> Array:
    values = make_map()
    values[:, 1] = error
    return values


def make_waveform() -> Array:
    return np.asarray(np.sin(np.cumsum(rng().normal(0, 0.3, (COUNT, 320)), axis=1)))


def make_notes() -> Array:
    """[samples, 20, 12] probabilities a moment and note; the last note hardly moves."""
    values = rng().random((COUNT, 20, 12)) ** 3
    values[..., -1] = 0.01 + 0.001 * values[..., -1]
    return np.asarray(values)


def make_shares() -> Array:
    """A detector whose sides are shares of the image."""
    return np.asarray((make_detector() + np.r_[16.0, 16, 0, 0, 0, 0, 0]) / np.r_[224.0, 224, 224, 224, 1, 1, 1])


def make_class_map() -> Array:
    return np.asarray(make_segmentation().argmax(axis=1))


def kill_scores(values: Array, where: Any) -> Array:
    """Two levels are left of the scores, as of a head whose scale is that of the boxes beside it."""
    broken = values.copy()
    broken[where] = np.where(values[where] > 0.7, 1.0, 0.0)
    return broken


def compare_several(expected: dict[str, Array], found: dict[str, Array]) -> TaskFidelity:
    count = len(next(iter(expected.values())))
    return compare_by_task(
        *([{n: v[i : i + 1] for n, v in side.items()} for i in range(count)] for side in (expected, found))
    )
