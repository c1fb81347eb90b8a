"""What the commands do with names of models of a hub."""

from __future__ import annotations

from modelwright.cli.printing import close_progress, open_progress


def fetch_source(source: str, *, trust: bool) -> str:
    """Returns a source that lies here: itself, or the folder of the model of a hub that it names."""
    from modelwright.exporters.hub import is_hub_name
    from modelwright.harness.fetching import fetch_named

    if not is_hub_name(source):
        return source
    progress = open_progress()
    try:
        return fetch_named(source, trust=trust, progress=progress)
    finally:
        close_progress(progress)
