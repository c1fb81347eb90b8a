"""Hardware profiles: what a machine is, whether this is one, and what it draws."""

from modelwright.profiles.builtin import builtin_names, builtin_profiles
from modelwright.profiles.detect import detect_host
from modelwright.profiles.fit import explain_misfit, fitting_profiles, require_fit
from modelwright.profiles.grid import GridRegion, find_region, load_regions
from modelwright.profiles.load import load_profile
from modelwright.profiles.power import power_on
from modelwright.profiles.schema import Accelerator, Match, Power, Profile

__all__ = [
    "Accelerator",
    "GridRegion",
    "Match",
    "Power",
    "Profile",
    "builtin_names",
    "builtin_profiles",
    "detect_host",
    "explain_misfit",
    "find_region",
    "fitting_profiles",
    "load_profile",
    "load_regions",
    "power_on",
    "require_fit",
]
