"""`python -m bench [name …]`: run every bench, or those named, print one table, write bench/results.json.

`python -m bench serve [part …]`, `page [part …]`, `scale [part …]` and `memory [part …]` run parts of these, `python -m
bench recipes [profile …]` these recipes, `python -m bench quality --help` says what that one takes."""
import sys
from importlib import import_module
from pathlib import Path

from multimodal_fakes.core import nearest, read_json, write_json

BENCHES = ["ocr", "reader", "text_training", "text_recipes", "frozen", "verite", "clips", "evaluation"]
WITH_PARTS = ["serve", "quality", "recipes", "page", "scale", "gpu", "memory"]        # what follows these is theirs
ASKED = [*BENCHES, "first_answer", "drift", "story", *WITH_PARTS]   # the last ten only when named
RESULTS = Path(__file__).parent/"results.json"


def main(names):
    parts = []
    if names and names[0] in WITH_PARTS:
        names, parts = names[:1], names[1:]
    for name in names:
        if name not in ASKED:
            sys.exit(f"Error: no bench {name!r}{nearest(name, ASKED)}")
    entries = read_json(RESULTS) if RESULTS.exists() else []
    kept = {e["name"]: e for e in entries}
    broken = []
    for name in names or BENCHES:
        run = import_module(f"bench.{name}").run
        for e in run(parts) if parts else run():
            broken += e.get("broken", [])
            kept[e["name"]] = e
        write_json(RESULTS, list(kept.values()))      # what is measured stays, also when a later bench fails
    for e in kept.values():
        ratio = "none" if e["ratio"] is None else f"{e['ratio']:.2f}"      # none where the peer has zero
        peer = "none" if e["peer"] is None else f"{e['peer']:,.4g}"
        figures = f"{e['ours']:>10,.4g} {peer:>10} {e['unit']:14} ratio {ratio}"
        print(f"{e['name']:52} {figures}")
    if broken:
        sys.exit("Limits that do not hold:\n" + "\n".join(dict.fromkeys(broken)))


if __name__ == "__main__":
    main(sys.argv[1:])
