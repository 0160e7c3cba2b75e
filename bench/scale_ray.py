"""What it costs to hand out work: 20,000 items that take no time, by our crew, by a pool of `concurrent.futures`, and
by a Ray cluster of this machine's own where `ray` is installed."""
import importlib.util
import sys

from bench.scale import entry, measured

N = 20_000
WORKERS = 2
SCRIPT = """
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multimodal_fakes.data.spread import spread
from multimodal_fakes.settings import Machines

how, n, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if how == "pool":
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        total = sum(pool.map(abs, range(n)))
else:
    total = sum(spread(abs, range(n), workers, machines=Machines(engine=how)))
assert total == n * (n - 1) // 2
"""


def run():
    "CPU seconds of handing out, start of the processes included"
    engines = ["local", *(["ray"] if importlib.util.find_spec("ray") else [])]
    took = {how: measured([sys.executable, "-c", SCRIPT, how, str(N), str(WORKERS)]) for how in ("pool", *engines)}
    for how in engines:
        what = f"{N:,} empty items handed to {WORKERS} workers, {how}"
        yield entry(what, took[how]["cpu_s"], "CPU s", peer=took["pool"]["cpu_s"])
        yield entry(f"{what}, memory", took[how]["peak_gb"], "GB", peer=took["pool"]["peak_gb"])
