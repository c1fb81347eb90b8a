"""The greenhouse example: its physics against known answers, its sizes, and what is committed beside it."""

import numpy as np
import pytest

from modelwright.examples.greenhouse import climate
from modelwright.examples.greenhouse.climate import Greenhouse, advance, saturation_pressure, saturation_vapour
from modelwright.examples.greenhouse.data import (
    HELD_OUT_PATH,
    HELD_OUT_WEEKS,
    calibration_samples,
    simulate,
    training_weeks,
)
from modelwright.examples.greenhouse.quality import explained_change, typical_change
from modelwright.examples.greenhouse.weather import STEPS_PER_WEEK, find_clear_sky, make_weather
from modelwright.harness.study.file import read_study
from modelwright.profiles import find_region

CLOSED = Greenhouse(cover_loss=0, cover_emission=0, leakage=0, condensation=0, soil_exchange=0)
CALM = np.array([[20.0, 10.0, 0.0, 0.0, 20.0, 20.0]])


def stored_heat(state: np.ndarray, house: Greenhouse) -> float:
    """J/m2, the latent heat of the vapour with it."""
    air, vapour, canopy, floor = state[0]
    sensible = house.air_capacity * air + house.canopy_capacity * canopy + house.floor_capacity * floor
    return sensible + 2.45e6 * house.height_m * vapour / 1000


def test_saturated_air_holds_what_tables_say() -> None:
    assert saturation_pressure(np.array(20.0)) == pytest.approx(2339, rel=0.003)
    assert saturation_pressure(np.array(0.0)) == pytest.approx(611, rel=0.001)
    assert saturation_vapour(np.array(20.0)) == pytest.approx(17.3, rel=0.005)


@pytest.mark.parametrize(
    ("controls", "sun", "power"),
    [
        ((100, 0, 0, 0, 0, 0), 0, 100),
        ((0, 0, 0, 0, 0, 80), 0, 80),
        ((0, 0, 0, 0, 250, 0), 0, 0),  # fog takes from the air's heat what it gives as vapour
        ((0, 0, 0, 0, 0, 0), 500, 500 * 0.7 * (0.7 + 0.3 * 0.6)),
        ((0, 0, 0, 1, 0, 0), 500, 500 * 0.7 * 0.5 * (0.7 + 0.3 * 0.6)),
    ],
)
def test_a_closed_greenhouse_keeps_its_energy(controls: tuple[float, ...], sun: float, power: float) -> None:
    state = np.array([[21.0, 9.0, 19.0, 17.0]])
    weather = CALM.copy()
    weather[0, 2] = sun
    later = advance(state, np.array([controls], dtype=float), weather, CLOSED)
    assert stored_heat(later, CLOSED) - stored_heat(state, CLOSED) == pytest.approx(power * 300, abs=1e-3)


def test_mist_settles_above_saturation_and_warms_the_air() -> None:
    state = np.array([[20.0, 25.0, 20.0, 20.0]])
    later = advance(state, np.zeros((1, 6)), CALM, CLOSED)
    assert later[0, 1] < 21
    assert later[0, 0] > 20.5


def test_open_vents_bring_the_weather_in() -> None:
    state = np.array([[25.0, 15.0, 25.0, 20.0]])
    weather = np.array([[10.0, 5.0, 0.0, 5.0, 5.0, 12.0]])
    closed, opened = (
        advance(state, np.array([[0, vents, 0, 0, 0, 0]], dtype=float), weather)[0] for vents in (0.0, 1.0)
    )
    assert opened[0] < closed[0] - 3
    assert opened[1] < closed[1] - 3


def test_the_sun_stands_where_it_should() -> None:
    midsummer, midwinter = (find_clear_sky(np.array(day), np.array(12.0)) for day in (171.0, 354.0))
    # Sine of 61.4 and of 14.6 degrees above the horizon, at 52 degrees north, by Haurwitz' formula.
    assert midsummer == pytest.approx(1098 * 0.878 * np.exp(-0.057 / 0.878), rel=0.01)
    assert midwinter == pytest.approx(1098 * 0.252 * np.exp(-0.057 / 0.252), rel=0.02)
    assert find_clear_sky(np.array(171.0), np.array(0.0)) == 0


def test_weather_is_possible() -> None:
    weather = make_weather(5, np.random.default_rng(0))
    assert weather.shape == (STEPS_PER_WEEK, 5, len(climate.WEATHER))
    temperature, vapour, sun, wind, sky, _ = np.moveaxis(weather, -1, 0)
    assert np.all(vapour <= saturation_vapour(temperature) * 1.0001)
    assert np.all(sky < temperature)
    assert sun.min() == 0
    assert wind.min() > 0


def test_the_committed_weeks_are_those_that_the_simulation_makes() -> None:
    kept = np.load(HELD_OUT_PATH)
    features, following = simulate(HELD_OUT_WEEKS, 20261129, steps=40)
    for name, values in (("features", features), ("target_next_state", following)):
        weeks = kept[name].reshape(HELD_OUT_WEEKS, STEPS_PER_WEEK, -1)
        np.testing.assert_allclose(weeks[:, :40], values.reshape(HELD_OUT_WEEKS, 40, -1), rtol=1e-3, atol=1e-3)


def test_teacher_and_student_have_the_sizes_that_they_should_and_predict_held_out_weeks() -> None:
    torch = pytest.importorskip("torch")
    from modelwright.examples.greenhouse.model import create_student, create_teacher, create_untrained_student

    kept = np.load(HELD_OUT_PATH)
    features, following = torch.from_numpy(kept["features"]), torch.from_numpy(kept["target_next_state"])
    change = following - features[:, :4]
    for create, parameters, least in ((create_teacher, 108_100, 0.98), (create_student, 5_508, 0.95)):
        model, examples = create()
        assert sum(parameter.numel() for parameter in model.parameters()) == parameters
        assert model(*examples).shape == (2, 4)
        with torch.no_grad():
            error = model(features) - following
        explained = 1 - error.var(0) / change.var(0)
        assert explained.min() > least, "of the change, for each state: predicting the old state is worth 0"
    untrained = create_untrained_student()
    assert torch.equal(untrained.mean, create_student()[0].mean)


@pytest.mark.slow
def test_what_calibrates_holds_the_extremes_of_every_input_and_no_step_that_judges() -> None:
    features = np.concatenate([sample["features"] for sample in calibration_samples()])
    whole, _ = training_weeks()
    assert len(features) <= 1024, "no more are read of a function"
    np.testing.assert_array_equal(features.min(axis=0), whole.min(axis=0))
    np.testing.assert_array_equal(features.max(axis=0), whole.max(axis=0))
    with np.load(HELD_OUT_PATH) as held_out:
        judging = {row.tobytes() for row in held_out["features"]}
    assert not judging & {row.tobytes() for row in features}


def test_the_explained_change_has_known_answers() -> None:
    with np.load(HELD_OUT_PATH) as held_out:
        features, following = held_out["features"], held_out["target_next_state"]
    targets = {"target_next_state": following}

    def judge(answers: np.ndarray) -> float:
        return explained_change({"next_state": [row[None] for row in answers]}, targets)

    assert judge(following) == 1.0
    assert judge(features[:, :4]) == pytest.approx(0.0, abs=0.2), "the old state; these weeks change as others do"
    assert judge(following + typical_change()) == pytest.approx(0.0, abs=1e-4)
    assert judge(following + typical_change() / 10) == pytest.approx(0.99, abs=1e-4)


def test_the_study_is_of_the_seven_variants() -> None:
    study = read_study(HELD_OUT_PATH.with_name("study.toml"))
    rows = {f"{name}/{target}" for name, variant in study.variants.items() for target in variant.targets or ()}
    assert rows >= {
        *(f"teacher/{target}" for target in ("torch-fp32", "ort-fp32", "ort-int8-dynamic", "ort-int8")),
        *(f"{name}/ort-fp32" for name in ("pruned-30", "pruned-50", "structured-50", "student")),
        *(f"{name}/ort-int8" for name in ("pruned-30", "student")),
    }
    assert study.fleet is not None
    assert (study.fleet.inferences_per_week, study.fleet.devices) == (2016, (1000, 10_000))
    assert find_region(str(study.region)).g_per_kwh == 420
