"""Honest and hostile traffic for a long time: does anything grow, stay behind, or get no answer?

`python -m bench serve soak --minutes 30 --seed 0`; over two copies and a PostgreSQL: `--copies 2 --postgres`. All that
is sent is drawn from a seed (`serve_soak_traffic`): honest clients post texts, pictures, pairs, batches and short
videos, say what was wrong and ask for metrics and health; every few seconds something of `serve_strangers` happens
once. The history is on. Rows and a picture lie in `_scratch/soak`."""
import csv
import json
import os
import random
import secrets
import threading
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location

import numpy as np
import psutil

from bench.serve_attack import with_home
from bench.serve_bystander import Bystander, p95, statuses
from bench.serve_hostile import LEAKS, say
from bench.serve_hosts import Ours, running
from bench.serve_scene import Detectors, Scene, comes_true, metric
from bench.serve_soak_traffic import HONEST, HOSTILE, LONGEST
from bench.serve_strangers import TRAIN, training_project
from multimodal_fakes.core import FakesError, root

HONEST_CLIENTS, PAUSE = 2, 0.4          # clients beside the bystander, and seconds between two requests of one
HOSTILE_EVERY, HOSTILE_LASTS = 5.0, 10.0        # seconds
LOOKED_AT = 180                         # samples of memory in all
HONEST_ADDRESS = "127.0.0.4"
CACHED = 1000           # answers that a copy remembers: full early, so that what rises later is something else
RISE = 16.0             # MiB that memory may rise for sure over the last two thirds of the time
HISTORY_KEY = "MMFAKES_HISTORY_KEY"
KINDS = ("listens", "judges", "trains")     # of processes


@dataclass
class Plan:
    "How long, with what, over how many"
    minutes:float
    seed:int
    copies:int
    postgres:bool


# ---- services
def postgres_helper():
    "The helper of the store's tests, which starts a PostgreSQL of one's own"
    path = root()/"nbs/fixtures/postgres.py"
    if not path.exists():
        raise FakesError(f"{path} is not here: it starts the PostgreSQL of --postgres")
    spec = spec_from_file_location("postgres", path)
    helper = module_from_spec(spec)
    spec.loader.exec_module(helper)
    if why := helper.no_postgres():
        raise FakesError(why)
    return helper.postgres()

@contextmanager
def database(home, plan):
    "Address of the database that is shared, and a function that says how many MB it takes"
    if not plan.postgres:
        path = home/"soak.db"
        def size():
            return sum(each.stat().st_size for each in home.glob("soak.db*")) / 1e6
        yield f"sqlite:///{path}", size
        return
    import psycopg
    with postgres_helper() as server, psycopg.connect(server.url, autocommit=True) as asking:
        def size():
            return asking.execute("SELECT pg_database_size(current_database())").fetchone()[0] / 1e6
        yield server.url, size

def copies_of(home, plan, detectors, url):
    "The services, each with a folder of its own"
    training_project(home)
    training = with_home(TRAIN, home)
    hosts = []
    for i in range(plan.copies):
        folder = home/f"copy_{i}"
        folder.mkdir(exist_ok=True)
        hosts.append(Ours(
            folder,
            engine=dict(models=str(detectors.models), tasks=[detectors.text, detectors.video], cache_entries=CACHED),
            http=dict(default_task=detectors.text),
            access={},
            log=dict(level="INFO"),
            history=dict(url=url),
            train=training,
        ))
    return hosts


# ---- traffic
@dataclass
class Watched(Scene):
    "A scene whose every answer is counted, and searched for what must not be told"
    others:list = field(default_factory=list)       # all copies of the service
    url:str = ""                                    # of their database
    source:str = HONEST_ADDRESS                     # address of the client
    counts:Counter = field(default_factory=Counter)         # status → how often
    leaks:list = field(default_factory=list)        # answers

    def send(self, raw, seconds=30, port=None):
        "Status and answer"
        try:
            status, answer = say(port or self.host.port, raw, seconds, self.source)
        except OSError:
            status, answer = 0, b""
        self.counts[status] += 1
        if LEAKS.search(answer.partition(b"\r\n\r\n")[2]):
            self.leaks.append(answer[:2000])
        return status, answer

@dataclass
class Where:
    "What all traffic shares"
    hosts:list
    stock:object
    detectors:Detectors
    url:str             # of the database

class Traffic(threading.Thread):
    "A client who does one thing after the other, drawn from a seed, until it is told to stop"
    def __init__(self, where, actions, seed, pause, lasts, source):
        super().__init__(daemon=True)
        self.where, self.actions, self.source = where, actions, source
        self.pause, self.lasts = pause, lasts       # seconds between two and of one, at most
        self.rng = random.Random(seed)
        self.over = threading.Event()
        self.counts = defaultdict(Counter)          # what → status → how often
        self.leaks = []

    def run(self):
        names = list(self.actions)
        weights = [self.actions[name][0] for name in names]
        while not self.over.wait(self.pause):
            self.do(self.rng.choices(names, weights)[0])

    def do(self, name):
        "One thing, at one of the copies"
        where = self.where
        scene = Watched(self.rng.choice(where.hosts), where.stock, where.detectors, others=where.hosts, url=where.url)
        scene.source, scene.counts, scene.leaks = self.source, self.counts[name], self.leaks
        scene.begin(self.lasts)
        act = self.actions[name][1]
        act(scene, random.Random(self.rng.random()))


# ---- watched
@dataclass
class Look:
    "One process at one moment"
    pid:int
    mib:float       # PSS
    files:int
    threads:int

def look(process):
    "None where it has just ended"
    with suppress(psutil.NoSuchProcess):
        mib = process.memory_full_info().pss / 2**20
        return Look(process.pid, mib, process.num_fds(), process.num_threads())
    return None

def trains(process):
    "Whether it belongs to a training run: these come and go, and weigh what the training weighs"
    with suppress(psutil.Error):
        return "MMFAKES_RUN" in process.environ()
    return False

def held_by(host):
    "Bytes of requests and jobs that a copy holds"
    return metric(Scene(host, None, None), "mmfakes_upload_bytes").get('{where="held"}', 0.0)

class Watch(threading.Thread):
    "Looks at all processes of all copies now and then, and writes a row each minute"
    def __init__(self, hosts, bystanders, size, seconds, folder):
        super().__init__(daemon=True)
        self.hosts, self.bystanders, self.size = hosts, bystanders, size
        self.every = max(2.0, seconds / LOOKED_AT)
        self.folder = folder
        self.samples = []       # (minutes, MiB of the first processes, of the workers)
        self.each = defaultdict(list)       # (copy, kind, process id) → (minutes, MiB)
        self.seen = {}          # process id → process, of all that ever were
        self.training = set()   # process ids
        self.rows = []
        self.over = threading.Event()
        self.began = time.time()

    def run(self):
        while not self.over.wait(self.every):
            looks = [self.look_at(host) for host in self.hosts]
            minutes = (time.time() - self.began) / 60
            first = sum(each.mib for listens, _, _ in looks for each in listens)
            workers = sum(each.mib for _, work, _ in looks for each in work)
            self.samples.append((minutes, first, workers))
            self.note_each(minutes, looks)
            if minutes >= len(self.rows) + 1:
                self.write_row(looks)

    def note_each(self, minutes, looks):
        "What each process holds"
        for i, copy in enumerate(looks):
            for kind, processes in zip(KINDS, copy):
                for seen in processes:
                    self.each[i, kind, seen.pid].append((minutes, seen.mib))

    def look_at(self, host):
        "Of one copy: the process that listens, the workers, and the processes that train"
        tree = host.tree()
        new = [process for process in tree if process.pid not in self.seen]
        self.training |= {process.pid for process in new if trains(process)}
        self.seen |= {process.pid: process for process in new}
        kinds = tree[:1], [], []
        for process in tree[1:]:
            kinds[1 + (process.pid in self.training)].append(process)
        return [[seen for seen in map(look, kind) if seen] for kind in kinds]

    def write_row(self, looks):
        "What the last minute was like"
        end = time.time()
        posts = [each for by in self.bystanders for each in by.between(end - 75, end - 15, "post")]
        first, workers, training = ([each for copy in looks for each in copy[i]] for i in range(3))
        everyone = first + workers + training
        held = sum(held_by(host) for host in self.hosts)
        row = dict(
            minute=len(self.rows) + 1,
            first_mib=" ".join(f"{each.mib:.0f}" for each in first),
            workers_mib=" ".join(f"{each.mib:.0f}" for each in workers),
            training_mib=round(sum(each.mib for each in training)),
            processes=len(everyone),
            files=sum(each.files for each in everyone),
            threads=sum(each.threads for each in everyone),
            held_mb=round(held / 1e6, 2),
            log_mb=round(sum((host.home/"ours.log").stat().st_size for host in self.hosts) / 1e6, 2),
            database_mb=round(self.size(), 2),
            p95_ms=round(1000 * p95(posts)),
            posts=json.dumps(statuses(posts)),
        )
        self.rows.append(row)
        print("  " + ", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        with open(self.folder/"soak.csv", "w", newline="") as f:
            table = csv.DictWriter(f, list(row))
            table.writeheader()
            table.writerows(self.rows)

def slope_of(minutes, mib):
    "MiB a minute, and half the width of its 95 % interval; ordinary least squares"
    x = np.asarray(minutes) - np.mean(minutes)
    slope = float(x @ mib / (x @ x))
    rest = mib - np.mean(mib) - slope * x
    error = np.sqrt(rest @ rest / max(len(x) - 2, 1) / (x @ x))
    return slope, 1.96 * float(error)

def growth_of(samples, column):
    "Slope over the last two thirds, its half width, and MiB that memory rose for sure over that time"
    late = np.array(samples[len(samples) // 3:])
    slope, half = slope_of(late[:, 0], late[:, column])
    return slope, half, max(0.0, slope - half) * (late[-1, 0] - late[0, 0])

def tenths_of(watch, minutes):
    "Of each process, the MiB in the middle of the first and of the last tenth of the time, none where it was not there"
    rows = []
    for (copy, kind, pid), samples in watch.each.items():
        early = [mib for at, mib in samples if at <= minutes / 10]
        late = [mib for at, mib in samples if at >= 0.9 * minutes]
        first, last = (round(float(np.median(part)), 1) if part else None for part in (early, late))
        lived = samples[-1][0] - samples[0][0]
        rows.append(dict(copy=copy, kind=kind, pid=pid, minutes=round(lived, 1), first_mib=first, last_mib=last))
    return rows

def write_tenths(rows, path):
    "A line each, printed as well"
    for row in rows:
        print("  " + ", ".join(f"{name} {value}" for name, value in row.items()))
    with open(path, "w", newline="") as f:
        table = csv.DictWriter(f, list(rows[0]))
        table.writeheader()
        table.writerows(rows)

def survivors(watch):
    "Processes that are still there after all copies were told to end"
    def alive():
        return [process for process in watch.seen.values() if process.is_running() and process.status() != "zombie"]
    comes_true(lambda: not alive(), 5)
    return alive()

def draw(watch, path):
    "Memory and p95 over the time"
    from matplotlib.figure import Figure
    samples = np.array(watch.samples)
    figure = Figure(figsize=(9, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(samples[:, 0], samples[:, 1], label="processes that listen")
    above.plot(samples[:, 0], samples[:, 2], label="workers")
    above.set(ylabel="PSS, MiB", ylim=0)
    above.legend()
    below.plot([row["minute"] for row in watch.rows], [row["p95_ms"] for row in watch.rows], marker="o")
    below.set(xlabel="minutes", ylabel="p95 of short posts, ms", ylim=0)
    figure.savefig(path, dpi=100)


# ---- the part
def end_all(hosts):
    "As a deployment ends them; seconds until the last had ended"
    began = time.monotonic()
    for host in hosts:
        host.process.terminate()
    for host in hosts:
        with suppress(Exception):
            host.process.wait(60)
    return time.monotonic() - began

def traffic_of(where, seed):
    "The honest clients and the hostile one"
    honest = [Traffic(where, HONEST, seed + i, PAUSE, 60.0, HONEST_ADDRESS) for i in range(1, HONEST_CLIENTS + 1)]
    return honest, Traffic(where, HOSTILE, seed, HOSTILE_EVERY, HOSTILE_LASTS, "127.0.0.1")

def soaked(where, watch, plan):
    "The honest clients and the hostile one, when the time is over"
    honest, hostile = traffic_of(where, plan.seed)
    threads = [watch, hostile, *honest]
    for thread in threads:
        thread.start()
    time.sleep(plan.minutes * 60 + 1)
    for thread in reversed(threads):
        thread.over.set()
    for thread in reversed(threads):
        thread.join(LONGEST)
    return honest, hostile

def added(traffics):
    "Counts of several clients: what → status → how often"
    total = defaultdict(Counter)
    for traffic in traffics:
        for name, counts in traffic.counts.items():
            total[name].update(counts)
    return {name: dict(sorted(counts.items())) for name, counts in sorted(total.items())}

def in_vain(counts):
    "Requests that got no answer within their bound, or one that is a fault of the service's"
    return sum(n for each in counts.values() for status, n in each.items() if status in (0, 500, 502))

def soak_part(home, stock, entry, detectors:Detectors, plan:Plan) -> list:
    "Figures of a soak"
    os.environ.setdefault(HISTORY_KEY, secrets.token_hex(32))
    folder = root()/"_scratch/soak"
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        url, size = stack.enter_context(database(home, plan))
        hosts = copies_of(home, plan, detectors, url)
        for host in hosts:
            stack.enter_context(running(host))
        bystanders = [stack.enter_context(Bystander(host, number=i)) for i, host in enumerate(hosts)]
        watch = Watch(hosts, bystanders, size, plan.minutes * 60, folder)
        honest, hostile = soaked(Where(hosts, stock, detectors, url), watch, plan)
        for bystander in bystanders:
            bystander.settle()
        posts = [each for by in bystanders for each in by.between(watch.began, time.time(), "post")]
        ended = end_all(hosts)
        left = survivors(watch)
    draw(watch, folder/"soak.png")
    tenths = tenths_of(watch, plan.minutes)
    write_tenths(tenths, folder/"soak_processes.csv")
    counts = dict(honest=added(honest), hostile=added([hostile]))
    for whose, table in counts.items():
        for name, statuses_of in table.items():
            print(f"  {whose}, {name}: {statuses_of}")
    return entries_of(entry, plan, watch, counts, posts, ended, left, [*honest, hostile], tenths)

def growth_entry(entry, when, about, samples, column, whose):
    "Whether the memory of some processes rose"
    slope, half, rise = growth_of(samples, column)
    print(f"  {whose}: {slope:+.2f} ± {half:.2f} MiB a minute over the last two thirds")
    words = f"{slope:+.2f} ± {half:.2f} MiB a minute over the last two thirds; {about}"
    kept = entry(f"{when}: rise of {whose} for sure", rise, RISE, "MiB", False, words)
    broken = [f"soak: {whose} rise by {rise:.0f} MiB"] if rise > RISE else []
    return kept | {"broken": broken}

def tenths_entry(entry, when, about, tenths):
    "The process whose memory rose most, of those that were there from the first to the last"
    whole = [row for row in tenths if row["first_mib"] and row["last_mib"]]
    most = max(whole, key=lambda row: row["last_mib"] - row["first_mib"])
    rise = most["last_mib"] - most["first_mib"]
    words = "; ".join(f"{row['kind']} of copy {row['copy']} {row['first_mib']} → {row['last_mib']}" for row in whole)
    words += f"; {len(tenths) - len(whole)} came or went meanwhile; {about}"
    name = f"{when}: the process that rose most, last tenth against the first"
    kept = entry(name, most["last_mib"], most["first_mib"], "MiB", False, words)
    return kept | {"broken": [f"soak: a process that {most['kind']} rose by {rise:.0f} MiB"] if rise > RISE else []}

def zero_entry(entry, name, n, unit, about):
    "What must not be"
    return entry(name, n, 0.0, unit, False, about) | {"broken": [f"{name}: {n} {unit}"] if n else []}

def entries_of(entry, plan, watch, counts, posts, ended, left, traffics, tenths):
    "As results.json keeps them"
    store = "PostgreSQL" if plan.postgres else "SQLite"
    when = f"soak, {plan.copies} × {store}"
    about = f"{plan.minutes:g} minutes, {plan.copies} copies over {store}, seed {plan.seed}; ended after {ended:.1f} s"
    lost = in_vain(counts["honest"]) + in_vain(counts["hostile"])
    unjudged = sum(each.status != 200 for each in posts)
    leaks = [leak for traffic in traffics for leak in traffic.leaks]
    for leak in leaks[:5]:
        print(f"  told: {leak[-300:]}")
    late = [row["p95_ms"] / 1000 for row in watch.rows] or [p95(posts)]
    worst = f"{when}: p95 of the worst minute against the middle one"
    return [
        growth_entry(entry, when, about, watch.samples, 1, "the processes that listen"),
        growth_entry(entry, when, about, watch.samples, 2, "the workers"),
        tenths_entry(entry, when, about, tenths),
        zero_entry(entry, f"{when}: processes left behind", len(left), "processes", about),
        zero_entry(entry, f"{when}: requests without an answer, or with 500", lost, "requests", json.dumps(counts)),
        zero_entry(entry, f"{when}: short posts not judged", unjudged, "posts", f"of {len(posts)}; {about}"),
        zero_entry(entry, f"{when}: answers in which something leaked", len(leaks), "answers", about),
        entry(worst, max(late), float(np.median(late)), "s", False, about),
    ]
