"""The service beside the design that most projects ship, beside BentoML and LitServe with the same graphs, under many users, and among strangers who mean no good.

`python -m bench serve` does all of it, `python -m bench serve speed load hostile kill` parts. One detector of the Fakeddit recipe with random weights is made for it (`serve_made`). Everything runs on this machine: the
client shares its cores with the servers, so it is made to cost little (`serve_load`), and is the same for all."""
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
from importlib.metadata import version
from pathlib import Path

import numpy as np

from bench import serve_hostile as hostile
from bench.serve_hosts import Bento, Lit, Ours, Probe, Reference, running
from bench.serve_load import as_form, drive, request
from bench.serve_posts import TASK, draw_photo, make_texts, with_comment
from multimodal_fakes.core import FakesError, read_json, root

CLIENTS, ROUNDS, PICTURES = 32, 3, 256
POSTS = {"reference": 192, "bentoml": 640, "litserve": 640, "ours": 640}       # of a round; the slow one gets fewer
FIRST, LAST = ("users", 10, 30), ("users", 200, 60)                          # users and seconds of Locust
MOST, MANY = 1000, 20_000                                                                # posts of one seed; requests over which memory is watched
LIMITS = dict(start=4.0, memory=1536.0, rate=8.0, p95=0.25, ahead=1.0, probe=0.1, growth=0.05, difference=0.05, flips=0.003)
REFUSED = Path(__file__).parent/"serve_refused.csv"


# ---- posts
class Stock:
    "Pictures drawn once, and posts made of them, none twice"
    def __init__(self, home):
        self.folder = Path(home)/"pictures"; self.folder.mkdir(exist_ok=True)
        rng = np.random.default_rng(7)
        self.pictures = [draw_photo(rng, i % 2) for i in range(PICTURES)]
        for i, p in enumerate(self.pictures): (self.folder/f"{i:04d}.jpg").write_bytes(p)

    def posts(self, n, seed):
        "The same seed gives the same posts, however many"
        return [dict(text=t, image=with_comment(self.pictures[(i + 32 * seed) % PICTURES], f"{seed}.{i}")) for i, t in enumerate(make_texts(MOST, 100 + seed)[:n])]

    def about(self): return f"titles of 11 words in the middle, JPEG of 480 to 960 px ({np.mean([len(p) for p in self.pictures]) / 1024:.0f} KB on average), drawn from a seed, no post twice"


# ---- entries
def entry(name, ours, peer, unit, higher, data, digits=4):
    "One figure as results.json keeps it"
    kept = ("onnxruntime", "torch", "fastapi", "uvicorn", "bentoml", "litserve", "locust", "schemathesis")
    return dict(name=f"serve: {name}", ours=round(ours, digits), peer=round(peer, digits), ratio=round(ours / peer, 3) if peer else 0.0, unit=unit, higher_is_better=higher, command="make bench-serve",
                machine=f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", data=data, versions={p: version(p) for p in kept})

def processor():
    "Its name"
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


# ---- 1 speed
def answers_of(load):
    "Number of the post → probability of the positive class"
    def one(body):
        said = json.loads(body)
        said = said[0] if isinstance(said, list) else said
        return said.get("probability_fake", said.get("probability"))
    return {i: one(body) for i, (status, body) in load.answers.items() if status == 200}

def one_round(host, stock, seed):
    "A server started, warmed, asked, weighed"
    with running(host) as started:
        drive(host.port, host.requests(stock.posts(2 * CLIENTS, 900 + seed)), CLIENTS)
        load = drive(host.port, host.requests(stock.posts(POSTS[host.name], seed)), CLIENTS)
        again = drive(host.port, host.requests(stock.posts(POSTS[host.name], seed)), CLIENTS) if host.name == "ours" else None
        memory = host.memory()
    if set(load.statuses()) != {200}: raise FakesError(f"{host.name} answered {load.statuses()}: {next(b for s, b in load.answers.values() if s != 200)[:500]}")
    print(f"  {host.name:10} {load.rate:7.1f} requests/s, p50 {1000 * load.quantile(.5):6.0f} ms, p95 {1000 * load.quantile(.95):6.0f} ms, ready after {started:5.2f} s, {memory:6.0f} MiB" + (f", {again.rate:.0f} requests/s when all is asked again" if again else ""))
    return dict(rate=load.rate, p50=load.quantile(.5), p95=load.quantile(.95), start=started, memory=memory, answers=answers_of(load), again=again.rate if again else None)

def speed(home, stock, rounds=ROUNDS) -> list:
    "Requests a second, latency, start and memory of each server in turn, and whether the answers are those of torch"
    found = {name: [] for name in POSTS}
    for seed in range(rounds):
        for kind in (Reference, Bento, Lit, Ours): found[kind.name].append(one_round(kind(home), stock, seed))
    median = lambda name, k: statistics.median(r[k] for r in found[name])
    about = f"{CLIENTS} clients, {stock.about()}, median of {rounds} rounds, servers by turns; {read_json(home/'models/fakeddit_recipe/onnx/export.json')['chosen']}"
    peers = {"reference": "FastAPI with torch, padded to 128 tokens, one at a time", "bentoml": "BentoML, the same graphs", "litserve": "LitServe, the same graphs"}
    told = []
    for name, what in peers.items():
        told += [entry(f"requests/s against {what}", median("ours", "rate"), median(name, "rate"), "requests/s", True, about), entry(f"p95 against {what}", median("ours", "p95"), median(name, "p95"), "s", False, about)]
        told += [entry(f"p50 against {what}", median("ours", "p50"), median(name, "p50"), "s", False, about), entry(f"start to ready against {what}", median("ours", "start"), median(name, "start"), "s", False, about), entry(f"memory against {what}", median("ours", "memory"), median(name, "memory"), "MiB", False, about)]
    pairs = np.array([(r["answers"][i], p) for r, t in zip(found["ours"], found["reference"]) for i, p in t["answers"].items()])
    same = f"{len(pairs)} posts judged by both"
    told += [entry("largest difference to torch's probability, against the gate", np.abs(np.diff(pairs)).max(), LIMITS["difference"], "probability", False, same, 6), entry("labels that differ from torch's, against the gate", float(np.mean((pairs[:, 0] >= .5) != (pairs[:, 1] >= .5))), LIMITS["flips"], "share", False, same, 6)]
    told += [entry("requests/s when every post is asked again, against asking first", median("ours", "again"), median("ours", "rate"), "requests/s", True, "answers come from the cache; " + about)]
    return told + [entry("start to ready, against its limit", median("ours", "start"), LIMITS["start"], "s", False, about), entry("memory, against its limit", median("ours", "memory"), LIMITS["memory"], "MiB", False, "all processes, shared pages once, after a round; " + about)]


# ---- 2 load
def locust(host, stock, home, users, seconds):
    "Statuses and latencies as Locust counts them"
    kept, environment = home/f"locust_{users}", os.environ | {"BENCH_PICTURES": str(stock.folder), "PYTHONPATH": str(root())}
    command = [str(Path(sys.executable).parent/"locust"), "-f", str(Path(__file__).parent/"serve_locust.py"), "--headless", "-u", str(users), "-r", str(users), "-t", f"{seconds}s", "--host", f"http://127.0.0.1:{host.port}", "--csv", str(kept), "--only-summary"]
    done = subprocess.run(command, cwd=root(), env=environment, capture_output=True, text=True, timeout=seconds + 120)
    rows = {r["Name"]: r for r in csv.DictReader(open(f"{kept}_stats.csv"))}
    all_, refused = rows.pop("Aggregated"), sum(int(r["Request Count"]) for n, r in rows.items() if "refused" in n)
    failures = list(csv.DictReader(open(f"{kept}_failures.csv")))
    for f in failures: print(f"  {f['Occurrences']} × {f['Name']}: {f['Error'][:300]}")
    if done.returncode not in (0, 1): raise FakesError(f"Locust ended with {done.returncode}: {done.stderr[-2000:]}")
    return dict(n=int(all_["Request Count"]), failed=int(all_["Failure Count"]), refused=refused, p50=float(all_["50%"]) / 1000, p95=float(all_["95%"]) / 1000, rate=float(all_["Requests/s"]))

def many_posts(stock, n):
    "Nine of ten short, one with a picture, none twice"
    for i in range(n):
        if i % 10: yield request("/classify", json.dumps({"text": f"Headline of number {i}: {i * 7919 % 1000} boats"}).encode(), "application/json")
        else: yield as_form("/predict", dict(text=f"Post of number {i}", image=with_comment(stock.pictures[i % PICTURES], f"many {i}")))

def memory_over(host, stock, n, steps=20):
    "Memory after each part of n requests, and the statuses of all"
    made, weighed, statuses = many_posts(stock, n), [], Counter()
    for _ in range(steps):
        part = drive(host.port, [next(made) for _ in range(n // steps)], CLIENTS)
        statuses.update(part.statuses()); weighed.append(host.memory())
    return weighed, statuses

def load(home, stock, many=MANY, first=FIRST, last=LAST) -> list:
    "Users by Locust, memory over many requests, the ready probe throughout"
    told, host = [], Ours(home)
    with running(host), Probe(host) as probe:
        for _, users, seconds in (first, last):
            began = len(probe.seconds)
            said = locust(host, stock, home, users, seconds)
            worst, about = max(probe.seconds[began:]), f"Locust, {users} users for {seconds} s: {said['n']} requests, {said['rate']:.1f}/s, p50 {said['p50']:.2f} s, p95 {said['p95']:.2f} s, {said['refused']} of them refused with 503 and Retry-After; two of three posts with a picture"
            print(f"  {about}, {said['failed']} failed, ready probe at most {1000 * worst:.0f} ms")
            told += [entry(f"errors but 503, {users} users for {seconds} s", said["failed"], 0.0, "requests", False, about), entry(f"slowest ready probe, {users} users for {seconds} s, against its limit", worst, LIMITS["probe"], "s", False, about)]
        began = len(probe.seconds)
        weighed, statuses = memory_over(host, stock, many)
        print(f"  {many:,} requests {dict(statuses)}: {' '.join(f'{m:.0f}' for m in weighed)} MiB")
    about = f"{many:,} distinct posts, one of ten with a picture, {CLIENTS} clients, statuses {dict(statuses)}; MiB by twentieths: {' '.join(f'{m:.0f}' for m in weighed)}"
    told += [entry(f"memory after {many:,} requests against after a quarter of them", weighed[-1], weighed[len(weighed) // 4 - 1], "MiB", False, about), entry("errors over them", many - statuses[200], 0.0, "requests", False, about)]
    return told + [entry("slowest ready probe over them, against its limit", max(probe.seconds[began:]), LIMITS["probe"], "s", False, about), entry("ready probes that did not answer 200", sum(s != 200 for s in probe.statuses), 0.0, "probes", False, f"{len(probe.statuses)} probes, four a second")]


# ---- 3 hostile
def group(name, told):
    "A row of the table for each thing sent"
    return [dict(group=name, sent=what, status=status, refused=400 <= status < 500, leaked=bool(hostile.LEAKS.search(answer))) for what, (status, answer, *_) in told]

def hostile_part(home, stock) -> list:
    "Everything that is meant to break it; the service must be there afterwards, and have told nothing"
    from bench.serve_made import make_clips
    make_clips(home)
    rows, host = [], Ours(home, limits=dict(header_seconds=5.0, body_seconds=20.0), engine=dict(tasks=[TASK, "clips"]))
    with running(host), Probe(host) as probe:
        rows += group("malformed file", [(f"{what}, as {field}", hostile.upload(host.port, data, field)) for what, field, data in hostile.malformed()])
        rows += group("bomb", [(what, send(host.port)) for what, send in hostile.bombs().items()])
        told, came = hostile.ssrf(host.port)
        rows += group("address, fetching off", told.items())
        rows += group("slow client", [(f"{('line', 'headers', 'body')[i % 3]} a byte at a time, number {i}", said) for i, said in sorted(hostile.slow(host.port).items())])
        code, report = hostile.schemathesis(host.port, home)
        alive, said = host.is_ready(), drive(host.port, host.requests(stock.posts(32, 555)), 8).statuses()
    fetching = Ours(home, fetch=dict(enabled=True, hosts=["media.example.org"]), http=dict(signed_urls=False))
    with running(fetching):
        told, more = hostile.ssrf(fetching.port)
        rows += group("address, fetching on for media.example.org", told.items())
    return hostile_entries(rows, came + more, code, report, alive and set(said) == {200}, probe)

def hostile_entries(rows, came, code, report, alive, probe):
    "The table written, and its sums"
    with open(REFUSED, "w", newline="") as f:
        out = csv.DictWriter(f, list(rows[0])); out.writeheader(); out.writerows(rows)
    told = []
    for name in dict.fromkeys(r["group"] for r in rows):
        mine = [r for r in rows if r["group"] == name]
        statuses = dict(sorted(Counter(r["status"] for r in mine).items()))
        print(f"  {name}: {sum(r['refused'] for r in mine)} of {len(mine)} refused, statuses {statuses}")
        for r in mine:
            if not r["refused"]: print(f"    not refused: {r['sent'][:100]}: {r['status']}")
        told.append(entry(f"refused with 4xx: {name}", sum(r["refused"] for r in mine), len(mine), "requests", True, f"statuses {statuses}; each in bench/{REFUSED.name}"))
    said = "; ".join(re.findall(r"Tested: \d+|\d+ generated, .+", report))
    print(f"  schemathesis ended with {code}; {said}; connections to our own listener {came}; alive {alive}")
    return told + [entry("answers in which something leaked", sum(r["leaked"] for r in rows), 0.0, "answers", False, f"{len(rows)} answers searched for paths, modules, addresses and tracebacks"), entry("connections that hostile addresses caused", came, 0.0, "connections", False, "a listener of ours was among the addresses"),
                   entry("schemathesis found a 5xx", float(code != 0), 0.0, "runs", False, f"phases examples, coverage, fuzzing, seed 0; {said}"), entry("alive afterwards, and answering", float(alive), 1.0, "services", True, "ready, and 32 posts answered"),
                   entry("slowest ready probe among all this", max(probe.seconds), LIMITS["probe"], "s", False, f"{len(probe.seconds)} probes")]


def kill(home, stock, kills=4) -> list:
    "Workers killed while they judge: how many requests are lost"
    host, n = Ours(home), 400
    with running(host):
        over, killed = threading.Event(), []
        def killer():
            while len(killed) < kills and not over.wait(1.5):
                busy = max(host.workers(), key=lambda p: p.cpu_percent(0.05))
                busy.kill(); killed.append(busy.pid)
        thread = threading.Thread(target=killer); thread.start()
        said = drive(host.port, host.requests(stock.posts(n, 321)), CLIENTS)
        over.set(); thread.join()
        lost, deadline = n - said.statuses().get(200, 0), time.time() + 30
        while len(host.workers()) < 2 and time.time() < deadline: time.sleep(0.2)
        after = drive(host.port, host.requests(stock.posts(64, 654)), CLIENTS).statuses()
    about = f"{len(killed)} workers killed with SIGKILL while {n} posts were judged by {CLIENTS} clients: statuses {said.statuses()}; 64 posts afterwards: {after}"
    print(f"  {about}")
    return [entry("requests lost by killed workers, against as many as were killed", lost, float(len(killed)), "requests", False, about), entry("answered after workers were killed", after.get(200, 0), 64.0, "requests", True, about)]


PARTS = {"speed": speed, "load": load, "hostile": hostile_part, "kill": kill}

def run(parts=()) -> list:
    "All parts or some, over one detector"
    from bench.serve_made import make_project
    for p in parts:
        if p not in PARTS: sys.exit(f"Error: no part {p!r} of the bench serve; there are {', '.join(PARTS)}")
    home, told = Path(tempfile.mkdtemp(prefix="bench-serve")), []
    try:
        print("making the detector and its graphs")
        _, table = make_project(home)
        print(table[["graph", "variant", "mb", "ms_1", "ms_32", "difference", "flips", "refused", "chosen"]].to_string(index=False))
        stock = Stock(home)
        for p in parts or PARTS: print(p); told += PARTS[p](home, stock)
    finally: shutil.rmtree(home)
    return told
