"""What sets of a published size cost: CPU seconds and peak memory of the process tree, and how both grow.

Sets are made from a seed in the published layouts, in a temporary folder. CPU seconds and memory hold on a machine
that has other work too; a time on the wall would not. `python -m bench scale [part …]` runs all parts, or those named:
each is a module of its own, `bench/scale_<part>.py`."""
import importlib
import math
import platform
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from multimodal_fakes.core import FakesError, nearest

PARTS = sorted(path.stem.removeprefix("scale_") for path in Path(__file__).parent.glob("scale_*.py"))
MACHINE = f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.machine()}"
EVERY = 0.1           # seconds between two looks at the memory, at least
LOOKING = 0.05        # share of the time that looks may take: a process stands still while its memory is counted


def _memory(process):
    "Bytes of a process, what it shares divided by those that share it; zero once it has ended"
    with suppress(psutil.Error):
        return process.memory_full_info().pss
    return 0


def _watch(process, ended, seen):
    "Keep the most memory that a process and all below it held at once, and the processes that were seen"
    took = 0
    while not ended.wait(max(EVERY, took / LOOKING)):
        start = time.perf_counter()
        with suppress(psutil.Error):
            family = [process, *process.children(recursive=True)]
            seen["peak"] = max(seen["peak"], sum(map(_memory, family)))
            seen["processes"] = max(seen["processes"], len(family))
        took = time.perf_counter() - start


def measured(
    command,       # words of a command line
    **options,     # of `subprocess.Popen`, such as cwd and env
) -> dict: # cpu_s, peak_gb (10^9 bytes), processes
    "What a command and all processes that it waits for took; raises `FakesError` where it fails"
    seen, ended = {"peak": 0, "processes": 1}, threading.Event()
    before = psutil.Process().cpu_times()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    watcher = threading.Thread(target=_watch, args=(psutil.Process(child.pid), ended, seen))
    watcher.start()
    try:
        said = child.communicate()[0]
    finally:
        ended.set()
        watcher.join()
    if child.returncode:
        raise FakesError(f"{' '.join(map(str, command))} ended with {child.returncode}:\n{said[-2000:]}")
    after = psutil.Process().cpu_times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"cpu_s": cpu, "peak_gb": seen["peak"] / 1e9, "processes": seen["processes"]}


def exponent(
    sizes,      # such as numbers of posts, growing
    values,     # CPU seconds or bytes of each
) -> float: # slope of the line through both in logarithms: 1 is linear, 2 quadratic
    "How a cost grows with the size of a set"
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    middle, level = sum(x) / len(x), sum(y) / len(y)
    along = [a - middle for a in x]
    return sum(a * (b - level) for a, b in zip(along, y)) / sum(a * a for a in along)


def entry(
    what,              # what was measured, with its size
    ours,              # figure
    unit,              # such as CPU s, GB, or none for an exponent
    limit=None,        # that must hold
    peer=None,         # figure of the peer, or of the way of before
    data="made, seed 0",
) -> dict: # as `bench` keeps it
    "One figure of scale"
    ratio = None if not peer else ours / peer
    broken = [f"{what}: {ours:.3g} {unit}, {limit} allowed"] if limit is not None and ours > limit else []
    names = {"name": f"scale: {what}", "ours": ours, "peer": peer, "unit": unit, "ratio": ratio, "data": data}
    return names | {"machine": MACHINE, "command": " ".join(["python -m bench", *sys.argv[1:]]), "broken": broken}


def run_parts(bench, known, asked):
    "The entries of those parts of a bench that are asked for, of all if none: each is a module of its own"
    for part in asked:
        if part not in known:
            raise FakesError(f"No part {part!r}{nearest(part, known)}")
    for part in asked or known:
        yield from importlib.import_module(f"bench.{bench}_{part}").run()


def run(parts=()):
    "The entries of all parts, or of those named"
    return run_parts("scale", PARTS, parts)
