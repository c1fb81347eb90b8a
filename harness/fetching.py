"""Models of a hub that a user names in the place of a file: fetched before anything else is done with them."""

from __future__ import annotations

from modelwright.exporters.hub import fetch, name_snapshot
from modelwright.harness.progress import Progress


def fetch_named(name: str, *, trust: bool, progress: Progress) -> str:
    """Returns the folder of the model of a hub, and says which commit it is of.

    Args:
        name: As the user wrote it, which `is_hub_name` takes.
        trust: Fetch pickled weights where there are no others.
        progress: Told what is going on.

    Raises:
        BadInputError: There is no such model, it may not be had, or the hub cannot be reached.
        ToolchainMissingError: huggingface_hub is not installed.
    """
    progress.start("fetch", f"fetching {name}")
    folder = fetch(name, trust=trust, progress=lambda text: progress.say("fetch", text))
    progress.finish("fetch", str(name_snapshot(folder)))
    return str(folder)
