"""What the memory recognises, what that costs, and what it teaches.

`python -m bench memory [part …]` runs all parts, or those named: each is a module of its own,
`bench/memory_<part>.py`."""
from pathlib import Path

from bench.scale import MACHINE, run_parts

PARTS = sorted(path.stem.removeprefix("memory_") for path in Path(__file__).parent.glob("memory_*.py"))


def entry(
    what,              # what was measured
    ours,              # figure
    unit,              # such as ms, GB, recall
    data,              # on what: made, seed 0
    command,           # that measures it again
    most=None,         # limit from above
    least=None,        # limit from below
    peer=None,         # figure of the peer, or without the memory
) -> dict: # as `bench` keeps it
    "One figure of the memory"
    too_much = most is not None and ours > most
    too_little = least is not None and ours < least
    broken = [f"{what}: {ours:.3g} {unit}, {most} allowed"] if too_much else []
    broken += [f"{what}: {ours:.3g} {unit}, {least} asked for"] if too_little else []
    names = {"name": f"memory: {what}", "ours": ours, "peer": peer, "unit": unit, "data": data}
    return names | {"ratio": ours / peer if peer else None, "machine": MACHINE, "command": command, "broken": broken}


def run(parts=()):
    "The entries of all parts, or of those named"
    return run_parts("memory", PARTS, parts)
