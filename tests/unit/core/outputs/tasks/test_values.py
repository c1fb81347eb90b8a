"""Numbers against what FP32's own vary: what a mean over all of them does not show."""

from __future__ import annotations

import numpy as np
import pytest
from answers import COUNT, Array, compare, compare_by_task, kill, make_units, make_waveform, rng

from modelwright.core.outputs.tasks.judge import TaskFidelity
from modelwright.core.outputs.tasks.roles import find_roles


def find_text(seen: TaskFidelity, measure: str) -> str:
    return next(check.text for check in seen.checks if check.measure == measure)


def make_clusters(width: int) -> Array:
    generator = rng()
    centres = generator.normal(0, 1, (12, width))
    return centres[generator.integers(0, 12, COUNT)] + generator.normal(0, 0.5, (COUNT, width))


@pytest.mark.parametrize("values", [make_clusters(64), make_waveform(), make_units()])
def test_samples_that_are_lost_altogether_count(values: Array) -> None:
    lost = values.copy()
    lost[::10] = values.mean(axis=0) if values.shape[1] == 64 else 0.0
    seen = compare(values, lost)
    assert seen.is_broken
    found = int(find_text(seen, "lost_samples").split()[0])
    assert 0.6 * COUNT / 10 <= found <= COUNT / 10
    noisy = values + np.random.default_rng(1).normal(0, 0.1, values.shape) * values.std(axis=0)
    assert "lost_samples" not in {check.measure for check in compare(values, noisy).checks}


def test_samples_of_any_length_are_lost() -> None:
    waves = [row[None, : 100 + 5 * index] for index, row in enumerate(make_waveform()[:40])]
    expected = [{"audio": wave} for wave in waves]
    seen = compare_by_task(expected, [{"audio": wave * (index % 8 > 0)} for index, wave in enumerate(waves)])
    assert seen.is_broken
    assert find_text(seen, "lost_samples").startswith("5 of 40 samples")


def test_an_error_in_proportion_loses_no_sample() -> None:
    """A price of 5,000 that is 3 % off is off by more than most prices are worth."""
    prices = np.exp(rng().normal(3, 1.5, (COUNT, 1)))
    assert "lost_samples" not in {check.measure for check in compare(prices, prices * 1.03).checks}


def test_an_offset_does_not_average_out() -> None:
    values = make_units()
    seen = compare(values, values + np.r_[0.0, 30.0, 0.0])  # a third of 90 degrees
    assert seen.is_broken
    assert seen.worst is not None
    assert seen.worst.text.startswith("channel 1 of 3 is off on average by 0.3")
    small = compare(values, values + np.r_[0.0, 5.0, 0.0])
    assert small.severity <= 1.0
    noise = np.random.default_rng(1).normal(0, 1, values.shape) * values.std(axis=0) * 0.09
    assert compare(values, values + noise).severity <= 1.0


def test_features_are_looked_at_together() -> None:
    """Of the features of a Relu most hardly vary: an error of one step is large beside them, and nobody sees it."""
    values = np.maximum(make_clusters(128) - 1.5, 0.0)
    noise = np.random.default_rng(1).normal(0, 10 ** (-25 / 20) * values.std(), values.shape)
    assert compare(values, np.maximum(values + noise, 0.0), "features").severity <= 1.0
    assert compare(values, values * (np.arange(128) % 2), "features").is_broken


def test_hidden_states_with_a_channel_that_is_larger_than_all_others() -> None:
    generator = rng()
    spread = np.exp(generator.normal(0, 0.6, 64))
    spread[3] = 15.0
    values = generator.normal(0, 1, (40, 16, 64)) * spread
    noise = np.random.default_rng(1).normal(0, 0.05 * np.median(spread), values.shape)
    assert compare(values, values + noise, "last_hidden_state").severity <= 1.0
    for broken in (
        kill(values, np.s_[..., 10]),
        np.roll(values, 1, axis=1),
        np.where(np.arange(64) == 3, values, 0.0),
    ):
        assert compare(values, broken, "last_hidden_state").is_broken


@pytest.mark.parametrize("shape", [(8, 32, 24), (17, 64, 48), (3, 40, 30)])
def test_channels_are_fewer_than_pixels(shape: tuple[int, int, int]) -> None:
    """Peaks of key points leave the border empty, so that columns differ more from each other than channels do."""
    generator = rng()
    channels, height, width = shape
    rows, columns = np.mgrid[:height, :width]
    y, x = (generator.uniform(4, size - 4, (40, channels, 1, 1)) for size in (height, width))
    values = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 6)
    for array, axis in ((values, 1), (np.moveaxis(values, 1, -1), 3)):
        assert find_roles([{"heatmaps": row[None]} for row in array])["heatmaps"].axis == axis
    noise = np.random.default_rng(1).normal(0, values.std() * 10 ** (-30 / 20), values.shape)
    assert compare(values, values + noise, "heatmaps").severity <= 1.0
    assert compare(values, values[..., ::-1], "heatmaps").is_broken
    gone = compare(values, kill(values, np.s_[:, 1], 0.0), "heatmaps")
    assert gone.is_broken
    assert any("class 1 is found in" in check.text for check in gone.checks)


def test_where_fp32_is_nan_nothing_is_asked() -> None:
    values = rng().normal(0, 1, (COUNT, 6, 4))
    values[:, 4:] = np.nan
    filled = np.nan_to_num(values, nan=3.0)
    samples = [{"hidden": row[None]} for row in values]
    assert compare_by_task(samples, [{"hidden": row[None]} for row in filled]).severity < 1e-9
    assert compare_by_task([{"hidden": row[None]} for row in filled], samples).is_broken


def make_characters(often: int) -> tuple[Array, Array]:
    """[samples, positions, characters] as probabilities: character 40 in `often` places, all of which are read as 0."""
    generator = rng()
    expected = np.zeros((20, 30, 60))
    flat = expected.reshape(-1, 60)
    flat[:] = generator.dirichlet(np.full(60, 0.02), len(flat)) * 0.02
    chosen = np.where(generator.random(len(flat)) < 0.2, generator.integers(1, 60, len(flat)), 0)
    chosen[chosen == 40] = 0
    chosen[generator.choice(len(flat), often, replace=False)] = 40
    flat[np.arange(len(flat)), chosen] += 0.98
    found = expected.copy()
    places = np.argwhere(expected.argmax(axis=-1) == 40)
    for sample, position in places:
        found[sample, position, [0, 40]] = expected[sample, position, [40, 0]]
    return expected, found


@pytest.mark.parametrize(("often", "broken"), [(1, False), (2, False), (12, True)])
def test_one_character_read_otherwise_is_no_channel_that_is_dead(often: int, broken: bool) -> None:
    seen = compare(*make_characters(often), name="probs")
    text = find_text(seen, "noise")
    assert text.startswith("channel 40 of 60 carries")
    assert any(check.is_broken for check in seen.checks) is broken
    assert max(check.severity for check in seen.checks) > 1, "it is said all the same"
