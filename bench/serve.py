"""The service beside the design that most projects ship, and beside BentoML and LitServe with the same graphs.

Then under many users, and among strangers who mean no good. `python -m bench serve` does all of it,
`python -m bench serve speed load hostile kill attack` parts; `python -m bench serve soak --minutes 30` is asked for by
name. One detector of the Fakeddit recipe with random weights is made
for it (`serve_made`). Everything runs on this machine: the client shares its cores with the servers, so it is made to
cost little (`multimodal_fakes.service.load`), and is the same for all."""
import argparse
import csv
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np

from bench import serve_hostile as hostile
from bench.serve_hosts import Bento, Lit, Ours, Probe, Reference, running
from bench.serve_posts import TASK, draw_photo, make_texts, with_comment
from multimodal_fakes.core import FakesError, read_json, root
from multimodal_fakes.service.load import as_form, drive, request

CLIENTS, ROUNDS, PICTURES = 32, 3, 256
POSTS = {"reference": 192, "bentoml": 640, "litserve": 640, "ours": 640}       # of a round; the slow one gets fewer
FIRST = (10, 30)        # users and seconds of Locust
LAST = (200, 60)
MOST = 1000             # posts of one seed
MANY = 20_000           # requests over which memory is watched
KILLED_OVER = 400       # posts that are judged while workers are killed
LIMITS = dict(
    start=4.0,          # seconds until ready
    memory=1536.0,      # MiB
    probe=0.1,          # seconds of the ready probe
    difference=0.05,    # of a probability
    flips=0.003,        # share of labels
)
REFUSED = Path(__file__).parent/"serve_refused.csv"
PACKAGES = ("onnxruntime", "torch", "fastapi", "uvicorn", "bentoml", "litserve", "locust", "schemathesis")


# ---- posts
class Stock:
    "Pictures drawn once, and posts made of them, none twice"
    def __init__(self, home):
        self.home = Path(home)      # of the bench: what it writes, databases among it
        rng = np.random.default_rng(7)
        self.pictures = [draw_photo(rng, i % 2) for i in range(PICTURES)]

    def picture(self, i, seed):
        "A picture that no other post of any seed has"
        return with_comment(self.pictures[(i + 32 * seed) % PICTURES], f"{seed}.{i}")

    def posts(self, n, seed):
        "The same seed gives the same posts, however many"
        texts = make_texts(MOST, 100 + seed)[:n]
        return [dict(text=text, image=self.picture(i, seed)) for i, text in enumerate(texts)]

    def about(self):
        "The posts in words"
        kb = np.mean([len(p) for p in self.pictures]) / 1024
        return (f"titles of 11 words in the middle, JPEG of 480 to 960 px ({kb:.0f} KB on average), "
                "drawn from a seed, no post twice")


# ---- entries
def entry(name, ours, peer, unit, higher, data, digits=4):
    "One figure as results.json keeps it"
    return dict(
        name=f"serve: {name}",
        ours=round(ours, digits),
        peer=round(peer, digits),
        ratio=round(ours / peer, 3) if peer else 0.0,
        unit=unit,
        higher_is_better=higher,
        command="make bench-serve",
        machine=f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        data=data,
        versions=versions_of(PACKAGES),
    )

def versions_of(packages):
    "Of those that are installed: only the speed needs the peers"
    here = [package for package in packages if find_spec(package)]
    return {package: version(package) for package in here}

def processor():
    "Its name"
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return model[1] if model else platform.machine()


# ---- 1 speed
def probability_of(body):
    "Of the positive class, in an answer of any of the servers"
    answer = json.loads(body)
    if isinstance(answer, list):
        answer = answer[0]
    return answer.get("probability_fake", answer.get("probability"))

def answers_of(load):
    "Number of the post → probability of the positive class"
    return {i: probability_of(body) for i, (status, body) in load.answers.items() if status == 200}

def need_answers(host, load):
    "Raises where a server answered anything but 200"
    if set(load.statuses()) == {200}:
        return
    refused = next(body for status, body in load.answers.values() if status != 200)
    raise FakesError(f"{host.name} answered {load.statuses()}: {refused[:500]}")

def one_round(host, stock, seed):
    "A server started, warmed, asked, weighed; ours is asked the same once more"
    n = POSTS[host.name]
    again = None
    with running(host) as started:
        drive(host.url, host.requests(stock.posts(2 * CLIENTS, 900 + seed)), CLIENTS)
        load = drive(host.url, host.requests(stock.posts(n, seed)), CLIENTS)
        if host.name == "ours":
            again = drive(host.url, host.requests(stock.posts(n, seed)), CLIENTS).rate
        memory = host.memory()
    need_answers(host, load)
    p50, p95 = load.quantile(.5), load.quantile(.95)
    latency = f"p50 {1000 * p50:6.0f} ms, p95 {1000 * p95:6.0f} ms"
    cached = "" if again is None else f", {again:.0f} requests/s when all is asked again"
    print(f"  {host.name:10} {load.rate:7.1f} requests/s, {latency}, ready after {started:5.2f} s, "
          f"{memory:6.0f} MiB{cached}")
    return dict(
        rate=load.rate,
        p50=p50,
        p95=p95,
        start=started,
        memory=memory,
        answers=answers_of(load),
        again=again,
    )

PEERS = {
    "reference": "FastAPI with torch, padded to 128 tokens, one at a time",
    "bentoml": "BentoML, the same graphs",
    "litserve": "LitServe, the same graphs",
}
COMPARED = [    # name of the figure, its key in a round, unit, whether higher is better
    ("requests/s", "rate", "requests/s", True),
    ("p95", "p95", "s", False),
    ("p50", "p50", "s", False),
    ("start to ready", "start", "s", False),
    ("memory", "memory", "MiB", False),
]

def median_of(of_rounds, key):
    "Over the rounds of one server"
    return statistics.median(one[key] for one in of_rounds)

def agreement(ours, reference):
    "Figures of how far the probabilities of ours are from those of torch, post by post"
    pairs = []
    for mine, theirs in zip(ours, reference):
        pairs += [(mine["answers"][i], p) for i, p in theirs["answers"].items()]
    pairs = np.array(pairs)
    difference = np.abs(np.diff(pairs)).max()
    labels = pairs >= .5
    flips = float(np.mean(labels[:, 0] != labels[:, 1]))
    same = f"{len(pairs)} posts judged by both"
    largest = "largest difference to torch's probability, against the gate"
    differing = "labels that differ from torch's, against the gate"
    return [
        entry(largest, difference, LIMITS["difference"], "probability", False, same, 6),
        entry(differing, flips, LIMITS["flips"], "share", False, same, 6),
    ]

def against_peer(ours, theirs, title, about):
    "Figures beside one peer"
    entries = []
    for figure, key, unit, higher in COMPARED:
        values = (median_of(ours, key), median_of(theirs, key))
        entries.append(entry(f"{figure} against {title}", *values, unit, higher, about))
    return entries

def against_limits(ours, about):
    "Figures of ours alone"
    again, rate = median_of(ours, "again"), median_of(ours, "rate")
    start, memory = median_of(ours, "start"), median_of(ours, "memory")
    cached = "requests/s when every post is asked again, against asking first"
    from_cache = f"answers come from the cache; {about}"
    weighed = f"all processes, shared pages once, after a round; {about}"
    return [
        entry(cached, again, rate, "requests/s", True, from_cache),
        entry("start to ready, against its limit", start, LIMITS["start"], "s", False, about),
        entry("memory, against its limit", memory, LIMITS["memory"], "MiB", False, weighed),
    ]

def speed(home, stock, rounds=ROUNDS) -> list:
    "Requests a second, latency, start and memory of each server in turn, and whether the answers are those of torch"
    results = {name: [] for name in POSTS}
    for seed in range(rounds):
        for kind in (Reference, Bento, Lit, Ours):
            results[kind.name].append(one_round(kind(home), stock, seed))
    chosen = read_json(home/"models/fakeddit_recipe/onnx/export.json")["chosen"]
    about = f"{CLIENTS} clients, {stock.about()}, median of {rounds} rounds, servers by turns; {chosen}"
    ours = results["ours"]
    entries = []
    for name, title in PEERS.items():
        entries += against_peer(ours, results[name], title, about)
    return entries + agreement(ours, results["reference"]) + against_limits(ours, about)


# ---- 2 load
@dataclass
class Users:
    "What Locust counted"
    n:int           # requests
    failed:int
    refused:int     # of them, with 503 and Retry-After
    p50:float       # seconds
    p95:float
    rate:float      # requests a second

def read_table(path):
    "Rows of a CSV file"
    with open(path) as f:
        return list(csv.DictReader(f))

def locust(host, home, users, seconds):
    "Statuses and latencies as Locust counts them"
    prefix = home/f"locust_{users}"
    command = [
        str(Path(sys.executable).parent/"locust"),
        "-f", str(root()/"deploy/locustfile.py"),
        "--headless",
        "-u", str(users),
        "-r", str(users),
        "-t", f"{seconds}s",
        "--host", host.url,
        "--csv", str(prefix),
        "--only-summary",
    ]
    timeout = seconds + 120
    done = subprocess.run(command, cwd=root(), capture_output=True, text=True, timeout=timeout)
    rows = {row["Name"]: row for row in read_table(f"{prefix}_stats.csv")}
    for failure in read_table(f"{prefix}_failures.csv"):
        print(f"  {failure['Occurrences']} × {failure['Name']}: {failure['Error'][:300]}")
    if done.returncode not in (0, 1):
        raise FakesError(f"Locust ended with {done.returncode}: {done.stderr[-2000:]}")
    total = rows.pop("Aggregated")
    return Users(
        n=int(total["Request Count"]),
        failed=int(total["Failure Count"]),
        refused=sum(int(row["Request Count"]) for name, row in rows.items() if "refused" in name),
        p50=float(total["50%"]) / 1000,
        p95=float(total["95%"]) / 1000,
        rate=float(total["Requests/s"]),
    )

def many_posts(stock, n):
    "Nine of ten short, one with a picture, none twice"
    for i in range(n):
        if i % 10:
            body = json.dumps({"text": f"Headline of number {i}: {i * 7919 % 1000} boats"})
            yield request("/classify", body.encode(), "application/json")
        else:
            image = with_comment(stock.pictures[i % PICTURES], f"many {i}")
            yield as_form("/predict", dict(text=f"Post of number {i}", image=image))

def memory_over(host, stock, n, steps=20):
    "Memory after each part of n requests, and the statuses of all"
    posts = many_posts(stock, n)
    memory = []
    statuses = Counter()
    for _ in range(steps):
        part = list(islice(posts, n // steps))
        statuses.update(drive(host.url, part, CLIENTS).statuses())
        memory.append(host.memory())
    return memory, statuses

def under_users(host, home, probe, users, seconds):
    "Figures of so many users of Locust"
    began = len(probe.seconds)
    counted = locust(host, home, users, seconds)
    worst = max(probe.seconds[began:])
    about = (f"Locust, {users} users for {seconds} s: {counted.n} requests, {counted.rate:.1f}/s, "
             f"p50 {counted.p50:.2f} s, p95 {counted.p95:.2f} s, {counted.refused} of them refused with 503 and "
             "Retry-After; two of three posts with a picture")
    print(f"  {about}, {counted.failed} failed, ready probe at most {1000 * worst:.0f} ms")
    when = f"{users} users for {seconds} s"
    slowest = f"slowest ready probe, {when}, against its limit"
    return [
        entry(f"errors but 503, {when}", counted.failed, 0.0, "requests", False, about),
        entry(slowest, worst, LIMITS["probe"], "s", False, about),
    ]

def over_many(host, stock, probe, many):
    "Figures of memory and errors over many requests"
    began = len(probe.seconds)
    memory, statuses = memory_over(host, stock, many)
    slowest = max(probe.seconds[began:])
    steps = " ".join(f"{mib:.0f}" for mib in memory)
    print(f"  {many:,} requests {dict(statuses)}: {steps} MiB")
    about = (f"{many:,} distinct posts, one of ten with a picture, {CLIENTS} clients, statuses {dict(statuses)}; "
             f"MiB by twentieths: {steps}")
    quarter = memory[len(memory) // 4 - 1]
    growth = f"memory after {many:,} requests against after a quarter of them"
    lost = many - statuses[200]
    return [
        entry(growth, memory[-1], quarter, "MiB", False, about),
        entry("errors over them", lost, 0.0, "requests", False, about),
        entry("slowest ready probe over them, against its limit", slowest, LIMITS["probe"], "s", False, about),
    ]

def at_default_settings(home, users=10, seconds=15):
    "Ten users, who must not notice that requests are limited"
    host = Ours(home, access={})
    with running(host):
        counted = locust(host, home, users, seconds)
    about = f"Locust, {users} users for {seconds} s: {counted.n} requests, {counted.rate:.1f}/s; `access` as it is"
    name = f"errors but 503 at the default settings, {users} users"
    return entry(name, counted.failed, 0.0, "requests", False, about)

def load(home, stock, many=MANY, first=FIRST, last=LAST) -> list:
    "Users by Locust, memory over many requests, the ready probe throughout"
    host = Ours(home)
    entries = []
    with running(host), Probe(host) as probe:
        for users, seconds in (first, last):
            entries += under_users(host, home, probe, users, seconds)
        entries += over_many(host, stock, probe, many)
    entries.append(at_default_settings(home))
    missed = sum(status != 200 for status in probe.statuses)
    about = f"{len(probe.statuses)} probes, four a second"
    return [*entries, entry("ready probes that did not answer 200", missed, 0.0, "probes", False, about)]


# ---- 3 hostile
def row_of(group, sent, status, answer):
    "A row of the table"
    refused = 400 <= status < 500
    leaked = bool(hostile.LEAKS.search(answer))
    return dict(group=group, sent=sent, status=status, refused=refused, leaked=leaked)

def rows_of(group, answers):
    "A row for each thing sent; an answer is status, body and whatever else is known of it"
    return [row_of(group, sent, status, answer) for sent, (status, answer, *_) in answers]

def send_malformed(port):
    "What was sent → the answer"
    for name, field, data in hostile.malformed():
        yield f"{name}, as {field}", hostile.upload(port, data, field)

def send_bombs(port):
    "What was sent → the answer"
    for name, send in hostile.bombs().items():
        yield name, send(port)

def send_slowly(port):
    "What was sent → the answer"
    places = ("line", "headers", "body")
    for i, answer in sorted(hostile.slow(port).items()):
        yield f"{places[i % 3]} a byte at a time, number {i}", answer

@dataclass
class Siege:
    "What came of all that is meant to break the service"
    rows:list       # of the table
    came:int        # connections to a listener of ours
    code:int        # exit status of schemathesis
    report:str      # of schemathesis
    alive:bool      # ready afterwards, and every post answered
    slowest:float   # ready probe, seconds
    n_probes:int

def besiege(home, stock):
    "Everything, to a service that fetches nothing"
    patience = dict(header_seconds=5.0, body_seconds=20.0)
    host = Ours(home, limits=patience, engine=dict(tasks=[TASK, "clips"]))
    port = host.port
    with running(host), Probe(host) as probe:
        rows = rows_of("malformed file", send_malformed(port))
        rows += rows_of("bomb", send_bombs(port))
        answers, came = hostile.ssrf(port)
        rows += rows_of("address, fetching off", answers.items())
        rows += rows_of("slow client", send_slowly(port))
        code, report = hostile.schemathesis(port, home)
        ready = host.is_ready()
        statuses = drive(host.url, host.requests(stock.posts(32, 555)), 8).statuses()
    alive = ready and set(statuses) == {200}
    return Siege(rows, came, code, report, alive, max(probe.seconds), len(probe.seconds))

def send_addresses(home):
    "Hostile addresses to a service that fetches from one host"
    fetch = dict(enabled=True, hosts=["media.example.org"])
    host = Ours(home, fetch=fetch, http=dict(signed_urls=False))
    with running(host):
        answers, came = hostile.ssrf(host.port)
    return rows_of("address, fetching on for media.example.org", answers.items()), came

def hostile_part(home, stock) -> list:
    "Everything that is meant to break it; the service must be there afterwards, and must leak nothing"
    from bench.serve_made import make_clips
    make_clips(home)
    siege = besiege(home, stock)
    rows, came = send_addresses(home)
    siege.rows += rows
    siege.came += came
    write_table(siege.rows)
    return refused_entries(siege.rows) + siege_entries(siege)

def write_table(rows):
    "bench/serve_refused.csv"
    with open(REFUSED, "w", newline="") as f:
        table = csv.DictWriter(f, list(rows[0]))
        table.writeheader()
        table.writerows(rows)

def refused_entries(rows):
    "How many of each group were refused"
    groups = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    entries = []
    for name, members in groups.items():
        statuses = dict(sorted(Counter(row["status"] for row in members).items()))
        n_refused = sum(row["refused"] for row in members)
        print(f"  {name}: {n_refused} of {len(members)} refused, statuses {statuses}")
        for row in members:
            if not row["refused"]:
                print(f"    not refused: {row['sent'][:100]}: {row['status']}")
        about = f"statuses {statuses}; each in bench/{REFUSED.name}"
        entries.append(entry(f"refused with 4xx: {name}", n_refused, len(members), "requests", True, about))
    return entries

def siege_entries(siege):
    "What leaked, what was reached, and whether the service is alive"
    tested = "; ".join(re.findall(r"Tested: \d+|\d+ generated, .+", siege.report))
    print(f"  schemathesis ended with {siege.code}; {tested}; connections to our own listener {siege.came}; "
          f"alive {siege.alive}")
    leaked = sum(row["leaked"] for row in siege.rows)
    failed = float(siege.code != 0)
    searched = f"{len(siege.rows)} answers searched for paths, modules, addresses and tracebacks"
    listener = "a listener of ours was among the addresses"
    phases = f"phases examples, coverage, fuzzing, seed 0; {tested}"
    alive = "ready, and 32 posts answered"
    probes = f"{siege.n_probes} probes"
    return [
        entry("answers in which something leaked", leaked, 0.0, "answers", False, searched),
        entry("connections that hostile addresses caused", siege.came, 0.0, "connections", False, listener),
        entry("schemathesis found a 5xx", failed, 0.0, "runs", False, phases),
        entry("alive afterwards, and answering", float(siege.alive), 1.0, "services", True, alive),
        entry("slowest ready probe among all this", siege.slowest, LIMITS["probe"], "s", False, probes),
    ]


# ---- 4 kill
def kill_workers(host, n, over, killed):
    "Kills the busiest worker every one and a half seconds, until `n` are killed or `over` is set"
    while len(killed) < n and not over.wait(1.5):
        busiest = max(host.workers(), key=lambda p: p.cpu_percent(0.05))
        busiest.kill()
        killed.append(busiest.pid)

def wait_for_workers(host, n=2, seconds=30):
    "Until so many are there, or time is up"
    deadline = time.time() + seconds
    while len(host.workers()) < n and time.time() < deadline:
        time.sleep(0.2)

def kill(home, stock, kills=4) -> list:
    "Workers killed while they judge: how many requests are lost"
    host = Ours(home)
    n = KILLED_OVER
    over = threading.Event()
    killed = []
    with running(host):
        killer = threading.Thread(target=kill_workers, args=(host, kills, over, killed))
        killer.start()
        statuses = drive(host.url, host.requests(stock.posts(n, 321)), CLIENTS).statuses()
        over.set()
        killer.join()
        wait_for_workers(host)
        after = drive(host.url, host.requests(stock.posts(64, 654)), CLIENTS).statuses()
    about = (f"{len(killed)} workers killed with SIGKILL while {n} posts were judged by {CLIENTS} clients: "
             f"statuses {statuses}; 64 posts afterwards: {after}")
    print(f"  {about}")
    lost = n - statuses.get(200, 0)
    name = "requests lost by killed workers, against as many as were killed"
    return [
        entry(name, lost, float(len(killed)), "requests", False, about),
        entry("answered after workers were killed", after.get(200, 0), 64.0, "requests", True, about),
    ]


# ---- 5 attack, 6 soak
def attack(home, stock, args) -> list:
    "Whom strangers can keep the service from"
    from bench.serve_attack import attack_part, detectors_of
    return attack_part(home, stock, entry, detectors_of(home, args.models), args.only)

def soak(home, stock, args) -> list:
    "Honest and hostile traffic for a long time"
    from bench.serve_attack import detectors_of
    from bench.serve_soak import Plan, soak_part
    plan = Plan(args.minutes, args.seed, args.copies, args.postgres)
    return soak_part(home, stock, entry, detectors_of(home, args.models), plan)


PARTS = {"speed": speed, "load": load, "hostile": hostile_part, "kill": kill}
WITH_OPTIONS = {"attack": attack, "soak": soak}
ALL = [*PARTS, "attack"]        # a soak takes half an hour: it is asked for by its name
GRAPHS = ["graph", "variant", "mb", "ms_1", "ms_32", "difference", "flips", "refused", "chosen"]

def arguments(argv):
    "What follows `python -m bench serve`"
    parser = argparse.ArgumentParser(prog="python -m bench serve", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(ALL)}, soak; all but soak if none")
    parser.add_argument("--models", help="attack, soak: folder of a finished pilot's detectors, in place of made ones")
    parser.add_argument("--only", action="append", default=[], help="attack: one of them by its name, repeatable")
    parser.add_argument("--minutes", type=float, default=30, help="soak: for how long")
    parser.add_argument("--seed", type=int, default=0, help="soak: of what is sent")
    parser.add_argument("--copies", type=int, default=1, help="soak: services over one database")
    parser.add_argument("--postgres", action="store_true", help="soak: the database is a PostgreSQL that is started")
    args = parser.parse_args(list(argv))
    unknown = [part for part in args.parts if part not in PARTS | WITH_OPTIONS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(ALL)} and soak")
    from bench.serve_strangers import ATTACKS
    for name in args.only:
        if name not in ATTACKS:
            parser.error(f"no attack {name!r}; there are: {'; '.join(ATTACKS)}")
    if args.copies > 1 and not args.postgres:
        parser.error("several copies need --postgres")
    return args

def make_detector(home):
    "The one that is asked, with its graphs"
    from bench.serve_made import make_project
    print("making the detector and its graphs")
    _, table = make_project(home)
    print(table[GRAPHS].to_string(index=False))

def run(argv=()) -> list:
    "All parts or some, over one detector"
    args = arguments(argv)
    parts = args.parts or ALL
    home = Path(tempfile.mkdtemp(prefix="bench-serve"))
    entries = []
    try:
        if not args.models or set(parts) - set(WITH_OPTIONS):
            make_detector(home)
        stock = Stock(home)
        for part in parts:
            print(part)
            entries += WITH_OPTIONS[part](home, stock, args) if part in WITH_OPTIONS else PARTS[part](home, stock)
    finally:
        shutil.rmtree(home)
    return entries
