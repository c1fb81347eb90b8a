"""Language models, ours beside the peers: the same folder through each tool's documented ways, measured together.

    python benchmarks/llm.py                                   # SmolLM2-135M, all peers
    python benchmarks/llm.py --prepare                         # builds and scores: what is left then is to measure
    python benchmarks/llm.py --shape qwen2.5-0.5b --without optimum-quanto --effort quick

Every peer gets an environment of its own in the cache, made of `recipes/requirements/`, and builds there from the same
folder of transformers. Artifacts, ours and theirs, then answer the same prompts with as many tokens, each in a process
of its own that takes turns with the others; prompts go in as tokens. Perplexity is on the same windows of the same
text, which each reads in its own runtime. Artifacts and scores of an earlier run are taken as they are. Writes
`results/llm-MACHINE.json` and `.md`, model by model: those that are not run again stay there.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from generation.hold import LEFT_OUT, Plan, enter_all, hold_contest, score_all
from generation.models import SHAPES, measure_exports, prepare_shape, prepare_smollm2
from generation.peers import PEERS
from generation.results import Export, keep_result
from generation.table import show, show_contest
from msgspec.structs import replace

from modelwright.harness.run.effort import EFFORTS
from modelwright.profiles import detect_host

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Prepares, builds, measures, writes."""
    arguments = _parse()
    cache: Path = arguments.cache.expanduser()
    plan = Plan(
        peers=tuple(
            peer
            for peer in PEERS
            if (not arguments.peer or peer.maker in arguments.peer) and peer.maker not in arguments.without
        ),
        cache=cache,
        effort=EFFORTS[arguments.effort],
        threads=arguments.threads,
        new_tokens=arguments.new_tokens,
    )
    exports: tuple[Export, ...] = ()
    if arguments.shape:
        prepared = prepare_shape(arguments.shape, cache)
        exports = measure_exports(prepared, cache / "work" / prepared.name / "ours" / "model")
    else:
        prepared = prepare_smollm2(cache)
    if arguments.prepare:
        failures: dict[str, str] = {}
        entered = enter_all(prepared, plan)
        score_all(prepared, entered, plan, failures)
        missing = {one.name: one.reason for one in entered.missing if one.reason != LEFT_OUT}
        for name, reason in (missing | failures).items():
            print(f"{name}: {reason}", file=sys.stderr)
        raise SystemExit(1 if missing or failures else 0)
    result = replace(hold_contest(prepared, plan), exports=exports)
    host = detect_host()
    machine = f"{host.cpu_model or host.architecture}, {host.cores} cores"
    path = arguments.results / f"llm-{re.sub(r'[^a-z0-9]+', '-', machine.lower()).strip('-')}.json"
    contest = keep_result(path, machine, result)
    path.with_suffix(".md").write_text(show_contest(contest))
    print(f"\n## {result.model}\n\n{show(result)}\n\n{path}", flush=True)


def _parse() -> argparse.Namespace:
    makers = sorted({peer.maker for peer in PEERS})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), help="random weights; default: SmolLM2-135M")
    parser.add_argument("--peer", action="append", choices=makers, help="default: all")
    parser.add_argument("--without", action="append", default=[], choices=makers)
    parser.add_argument(
        "--prepare", action="store_true", help="build and score, on a machine that may be busy; no times"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=20, metavar="N")
    parser.add_argument("--effort", choices=list(EFFORTS), default="standard")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/modelwright-peers"))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
