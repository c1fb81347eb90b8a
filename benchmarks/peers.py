"""Ours against the peers: the same models through each tool's documented ways, measured together on this machine.

    python benchmarks/peers.py --cifar FOLDER --trec FOLDER            # all models, all peers: hours on 2 cores
    python benchmarks/peers.py --cifar FOLDER --model resnet8 --peer nncf --effort quick

Every peer gets an environment of its own in the cache, made of `recipes/requirements/`. Files, ours and theirs, are run
by the vendors' plain APIs with one thread, each in a process of its own that takes turns with the others; then by this
harness, likewise. The speed-up is over the FP32 model in ONNX Runtime. Agreement and accuracy are on held-out samples
that neither calibrated nor tuned. Writes `results/peers-MACHINE.json` and `.md`, model by model: those that are not run
again stay there.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from contest.hold import Plan, hold_contest
from contest.peers import PEERS
from contest.results import keep_result
from contest.table import show, show_contest
from models.catalog import MODELS, prepare

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
            if (not arguments.peer or peer.maker in arguments.peer) and peer.recipe not in arguments.without
        ),
        cache=cache,
        effort=EFFORTS[arguments.effort],
        judged=arguments.judge,
        fresh=arguments.fresh,
        by_harness=not arguments.plain_only,
    )
    host = detect_host()
    machine = f"{host.cpu_model or host.architecture}, {host.cores} cores"
    path = arguments.results / f"peers-{re.sub(r'[^a-z0-9]+', '-', machine.lower()).strip('-')}.json"
    for name in arguments.model or MODELS:
        prepared = prepare(name, cache, cifar=arguments.cifar, trec=arguments.trec)
        if prepared is None:
            print(f"{name}: not run, --{MODELS[name].data} was not given", file=sys.stderr)
            continue
        result = hold_contest(prepared, plan)
        print(f"\n## {name}\n\n{show(result)}\n", flush=True)
        contest = keep_result(path, machine, result)
        path.with_suffix(".md").write_text(show_contest(contest))
        print(path)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, help="folder with train.npz and test.npz: images [n, 32, 32, 3], labels")
    parser.add_argument("--trec", type=Path, help="folder with train.tsv and test.tsv: sentence, label")
    parser.add_argument("--model", action="append", choices=sorted(MODELS), help="default: all")
    parser.add_argument("--peer", action="append", choices=sorted({peer.maker for peer in PEERS}), help="default: all")
    parser.add_argument("--without", action="append", default=[], metavar="RECIPE", help="such as accuracy-control")
    parser.add_argument("--effort", choices=list(EFFORTS), default="standard")
    parser.add_argument("--judge", type=int, default=2000, metavar="N", help="on the first N held-out samples at most")
    parser.add_argument("--plain-only", action="store_true", help="leave the harness out")
    parser.add_argument("--fresh", action="store_true", help="build ours again")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/modelwright-peers"))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
