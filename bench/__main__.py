"""`python -m bench [name …]`: run every bench, or those named, print one table, write bench/results.json. `python -m bench serve [part …]` runs parts of that one."""
import sys
from importlib import import_module
from pathlib import Path

from multimodal_fakes.core import nearest, read_json, write_json

BENCHES = ["ocr", "reader", "text_training", "text_recipes", "frozen", "verite", "clips", "evaluation"]     # all that run without being named; `gpu` and `serve` are asked for
RESULTS = Path(__file__).parent/"results.json"


ASKED = [*BENCHES, "gpu", "serve"]


def main(names):
    parts = names[1:] if names[:1] == ["serve"] else []      # `serve` has parts of its own
    names = names[:1] if parts else names
    for name in names:
        if name not in ASKED: sys.exit(f"Error: no bench {name!r}{nearest(name, ASKED)}")
    kept = {e["name"]: e for e in (read_json(RESULTS) if RESULTS.exists() else [])}
    for name in names or BENCHES:
        for e in import_module(f"bench.{name}").run(*([parts] if parts else [])): kept[e["name"]] = e
        write_json(RESULTS, list(kept.values()))      # what is measured stays, also when a later bench fails
    for e in kept.values(): print(f"{e['name']:52} {e['ours']:>10,.4g} {e['peer']:>10,.4g} {e['unit']:14} ratio {e['ratio']:.2f}")


if __name__ == "__main__": main(sys.argv[1:])
