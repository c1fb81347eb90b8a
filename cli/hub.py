"""What the commands do with names of models of a hub."""

from __future__ import annotations

from modelwright.cli.printing import close_progress, open_progress


def fetch_source(source: str, *, trust: bool) -> str:
    """Returns a source that lies here: itself, or the folder of the model of a hub that it names."""
    from modelwright.exporters.hub import fetch, is_hub_name, name_snapshot

    if not is_hub_name(source):
        return source
    progress = open_progress()
    try:
        progress.start("fetch", f"fetching {source}")
        folder = fetch(source, trust=trust, progress=lambda text: progress.say("fetch", text))
        progress.finish("fetch", str(name_snapshot(folder)))
    finally:
        close_progress(progress)
    return str(folder)
