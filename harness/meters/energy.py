"""The energy of an inference as every meter and the power model tell it, and the carbon that it stands for."""

from __future__ import annotations

from modelwright.core.records.codec import Count, Record
from modelwright.harness.kinds import Figure
from modelwright.harness.meters.power_samples import PowerSamples
from modelwright.profiles.grid import GridRegion


class Energy(Record, kw_only=True):
    """What an inference takes; measured and estimated figures never mix.

    Attributes:
        per_inference_j: Joules an inference, the machine's idle share included; null with `reason`.
        above_idle_per_inference_j: Without the idle share; null where the idle power is not known.
        idle_power_w: Before anything was loaded.
        loaded_idle_power_w: Of a GPU's board with all artifacts loaded and none running.
        mean_power_w: While inferring.
        power: How the power varied meanwhile; null for an estimate.
        source: `measured:METER` or `estimated:tdp_util`.
        scope: What is covered, such as `CPU package`; figures of two scopes are not comparable.
        reason: Why there is none.
        model: Of an estimate: where the power figures come from.
        metered_s: Of a GPU: seconds between the first and the last step of its counter.
        counter_steps: Of a GPU: steps of its counter meanwhile.
        total_j: Joules of all measured inferences.
        transfers: Of a GPU: whether inputs and outputs were copied in the metered inferences; null elsewhere.
    """

    per_inference_j: Figure | None = None
    above_idle_per_inference_j: Figure | None = None
    idle_power_w: Figure | None = None
    loaded_idle_power_w: Figure | None = None
    mean_power_w: Figure | None = None
    power: PowerSamples | None = None
    source: str | None = None
    scope: str | None = None
    reason: str | None = None
    model: str | None = None
    metered_s: Figure | None = None
    counter_steps: Count | None = None
    total_j: Figure | None = None
    transfers: bool | None = None

    @property
    def is_estimated(self) -> bool:
        """Whether there is a figure that no meter took."""
        return self.per_inference_j is not None and not (self.source or "").startswith("measured")


class Carbon(Record, kw_only=True):
    """Grams of CO2 equivalent, from the energy and the yearly average of a grid.

    Attributes:
        per_inference_g: Grams an inference; null without an energy.
        region: Code of the grid's region.
        g_per_kwh: Grams a kilowatt-hour there.
        year: Of that average.
        source: Where it comes from.
    """

    per_inference_g: Figure | None = None
    region: str | None = None
    g_per_kwh: Figure | None = None
    year: Count | None = None
    source: str | None = None


def estimate_carbon(energy: Energy, region: GridRegion) -> Carbon:
    """Returns the carbon of an energy, from the region's yearly average."""
    joules = energy.per_inference_j
    return Carbon(
        per_inference_g=None if joules is None else joules / 3.6e6 * region.g_per_kwh,
        region=region.name,
        g_per_kwh=region.g_per_kwh,
        year=region.year,
        source=region.source,
    )
