"""`python -m bench [name …]`: run every bench, or those named, print one table, write bench/results.json."""
import sys
from importlib import import_module
from pathlib import Path

from multimodal_fakes.core import nearest, read_json, write_json

BENCHES = ["ocr", "reader", "text_training", "text_recipes", "frozen", "verite", "clips", "evaluation"]     # all that run without being named; `gpu` is asked for
RESULTS = Path(__file__).parent/"results.json"


def main(names):
    for name in names:
        if name not in [*BENCHES, "gpu"]: sys.exit(f"Error: no bench {name!r}{nearest(name, [*BENCHES, 'gpu'])}")
    kept = {e["name"]: e for e in (read_json(RESULTS) if RESULTS.exists() else [])}
    for name in names or BENCHES:
        for e in import_module(f"bench.{name}").run(): kept[e["name"]] = e
        write_json(RESULTS, list(kept.values()))      # what is measured stays, also when a later bench fails
    for e in kept.values(): print(f"{e['name']:52} {e['ours']:>10,.4g} {e['peer']:>10,.4g} {e['unit']:14} ratio {e['ratio']:.2f}")


if __name__ == "__main__": main(sys.argv[1:])
