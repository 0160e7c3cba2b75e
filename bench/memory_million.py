"""A million items in a memory: bytes, memory of a process, time to build and to look up, four clients, a kill.

`python -m bench.memory_million 100000` measures this number of items; `--keep FOLDER` leaves the memory there, or
measures one that lies there already. Times are CPU time of the one thread that looks up: they hold on a machine that
has other work, and are the time on the wall on one that has not."""
import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from bench.memory import entry
from multimodal_fakes.core import root
from multimodal_fakes.data.spread import ONE_THREAD
from multimodal_fakes.memory.index import joined, with_vectors
from multimodal_fakes.memory.near import unpacked
from multimodal_fakes.memory.prints import Prints, minhash
from multimodal_fakes.memory.recall import Memory, MemoryLimits

N, WIDTH, SPACE = 1_000_000, 384, "text@made"
AT_ONCE = 20_000             # items a transaction
LIMITS = MemoryLimits(items=10**9, items_a_day=10**9, tail=0)
LOOKS, CLIENTS, SECONDS = 1_000, 4, 15.0
DATA = "made, seed 0: a picture and a vector each, a text every second one"
_SUBJECTS = np.random.default_rng(7).standard_normal((2000, WIDTH)) * np.arange(1, WIDTH + 1) ** -0.5
_TURN = np.linalg.qr(np.random.default_rng(8).standard_normal((WIDTH, WIDTH)))[0]


def make_vectors(n, rng):
    "About 2,000 subjects, with a spectrum that falls and a mean that is not zero, as those of text encoders"
    own = rng.standard_normal((n, WIDTH)) * np.arange(1, WIDTH + 1) ** -0.4
    vectors = (_SUBJECTS[rng.integers(0, len(_SUBJECTS), n)] + 0.7 * own) @ _TURN + 0.15
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_text(rng):
    "Ten words, few of them often"
    return " ".join(f"w{int(30_000 ** r)}" for r in rng.random(10))


def make_posts(n, seed):
    "Prints of posts that have nothing to do with each other"
    rng = np.random.default_rng(seed)
    codes, vectors = rng.integers(0, 256, (n, 1, 32), np.uint8), make_vectors(n, rng)
    for i in range(n):
        words = make_text(rng) if i % 2 else ""
        sums = rng.bytes(80).hex()
        yield Prints(
            files={"image": sums[:64]}, md5={"image": sums[64:96]}, words=sums[96:160] if words else "",
            text=minhash(words) if words else None,
            picture=codes[i], quality=100, vectors={SPACE: vectors[i]})


def copy_of(post, rng):
    "The same post again: another file, 12 bits of the picture's hash, an eighth of the text, a little of the vector"
    bits = np.unpackbits(post.picture[0])
    bits[rng.choice(256, 12, replace=False)] ^= 1     # as near as a copy among a million has to be
    picture = rng.integers(0, 256, (8, 32), np.uint8)
    picture[3] = np.packbits(bits)                                  # as one of eight turns
    vector = post.vectors[SPACE] + 0.02 * rng.standard_normal(WIDTH).astype(np.float32)
    text = post.text
    if text is not None: text = np.where(rng.random(64) < 0.125, rng.integers(0, 2**16, 64), text).astype(np.uint16)
    sums = rng.bytes(80).hex()
    return post._replace(files={"image": sums[:64]}, md5={"image": sums[64:96]}, words="", text=text, picture=picture,
                         vectors={SPACE: vector / np.linalg.norm(vector)})


def cpu(): return sum(resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime
                      for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def build(folder, n):
    "Remember n posts, then index them: CPU seconds of each, seconds on the wall, most memory of one process"
    costs, began = {}, (cpu(), time.perf_counter())
    with Memory.open(folder, create=True, limits=LIMITS) as memory:
        for at in range(0, n, AT_ONCE):
            posts = make_posts(min(AT_ONCE, n - at), seed=at)
            rows = [dict(prints=post, task="fake_news", label="fake", source="made") for post in posts]
            before = cpu()
            memory.remember_all(rows, f"desk{at // AT_ONCE % 10}")
            costs["enter"] = costs.get("enter", 0) + cpu() - before
            print(f"{at + len(rows):,} entered, {cpu() - began[0]:.0f} CPU s", flush=True)
        before = cpu(), time.perf_counter()
        memory.tidy()
        costs |= {"index": cpu() - before[0], "index_wall": time.perf_counter() - before[1]}
    costs["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return costs


def on_disk(folder):
    "Bytes by what they are for"
    sizes = {path: path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()}
    kinds = {"memory.sqlite": "ledger", "codes": "hashes", "marks": "texts", "vectors": "vectors"}
    def begins(name): return sum(size for path, size in sizes.items() if path.name.startswith(name))
    told = {kind: begins(name) for name, kind in kinds.items()}
    return told | {"in all": sum(sizes.values())}


def resident():
    "Bytes of this process that are in memory: its own, and pages of mapped files, which the system may take back"
    rows = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    held = {name: int(rows[name].split()[0]) * 1024 for name in ("Rss", "Anonymous")}
    return {"own": held["Anonymous"], "mapped": held["Rss"] - held["Anonymous"]}


def looked_up(folder, n):
    "Milliseconds of look-ups, what they found, and the memory of the process before and after"
    rng = np.random.default_rng(1)
    firsts = range(0, n, AT_ONCE * max(1, n // AT_ONCE // 10))         # of ten batches, of which a part is drawn
    known = [copy_of(post, rng) for first in firsts for post in islice(make_posts(AT_ONCE, seed=first), 200)]
    new = [copy_of(post, rng) for post in make_posts(LOOKS, seed=10**9)]
    empty = resident()
    with Memory.open(folder, read_only=True, limits=LIMITS) as memory:
        memory.recall(new[0])
        opened = resident()
        chosen = [known[i] for i in rng.choice(len(known), min(LOOKS, len(known)), replace=False)]
        found = [timed(memory.recall, post, "fake_news") for post in chosen]
        found_new = [timed(memory.recall, post, "fake_news") for post in new]
        near = [timed(memory.neighbours, SPACE, post.vectors[SPACE]) for post in new[:200]]
        after = resident()
    times = {name: [ms for ms, _, _ in rows] for name, rows in (("copy", found), ("new", found_new), ("near", near))}
    return times | {
        "wall": [ms for _, ms, _ in found_new], "recall": said_copies(found), "false": said_copies(found_new),
        "empty": empty, "opened": opened, "after": after}


def said_copies(looks):
    "Share of look-ups that tell a copy"
    return np.mean([any(one["relation"] == "copy" for one in answer) for _, _, answer in looks])


def timed(ask, *given):
    "Milliseconds of this thread, milliseconds on the wall, and the answer"
    began = time.thread_time(), time.perf_counter()
    answer = ask(*given)
    return 1000 * (time.thread_time() - began[0]), 1000 * (time.perf_counter() - began[1]), answer


def ten_nearest(folder, n):
    "Share of the ten nearest vectors that are found, against looking through all"
    asked = np.stack([post.vectors[SPACE] for post in make_posts(50, seed=2 * 10**9)])
    best = [[] for _ in asked]
    with Memory.open(folder, read_only=True, limits=LIMITS) as memory:
        with memory.ledger.reading() as db:
            for low in range(0, n, 100_000):
                numbers, items = with_vectors(db, joined([]), low, low + 100_000).vectors[SPACE]
                for mine, cosines in zip(best, asked @ unpacked(numbers).T):
                    mine += [(cosines[i], int(items[i])) for i in np.argsort(-cosines)[:10]]
            id_of = "select lower(hex(id)) from items where n = ?"
            truly = [{db.execute(id_of, [n]).fetchone()[0] for _, n in sorted(mine)[-10:]} for mine in best]
        found = memory.neighbours(SPACE, asked, k=10)
    return np.mean([len(mine & set(ids)) / 10 for mine, (ids, *_) in zip(truly, found)])


def client(folder, number):
    "Remember and recall in turn for some seconds; a line of JSON on standard output for each"
    with Memory.open(folder, limits=LIMITS) as memory:
        posts = make_posts(5_000, seed=3 * 10**9 + number)
        began = time.perf_counter()
        for post in posts:
            if time.perf_counter() - began > SECONDS: break
            wrote = timed(memory.remember, post, "fake_news", "fake", f"client{number}")
            print("remember", *wrote[:2], wrote[2], flush=True)
            read = timed(memory.recall, post, "fake_news")
            print("recall", *read[:2], wrote[2] in {one["id"] for one in read[2]}, flush=True)


def clients(folder, n_clients=CLIENTS, kill_after=None):
    "What some clients say that append and search at once, all killed in the middle where `kill_after` says when"
    command = [sys.executable, "-m", "bench.memory_million", "--client", str(folder)]
    own = os.environ | ONE_THREAD
    running = [subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True, cwd=root(), env=own)
               for i in range(n_clients)]
    if kill_after:
        time.sleep(kill_after)
        for one in running: one.send_signal(signal.SIGKILL)
    said = [one.communicate()[0].splitlines() for one in running]
    return [line.split() for lines in said for line in lines if len(line.split()) == 4]


def lost(folder, told):
    "Ids that were told and are not there"
    with Memory.open(folder, read_only=True, limits=LIMITS) as memory, memory.ledger.reading() as db:
        there = {id for id, in db.execute("select lower(hex(id)) from items where whose like 'client%'")}
    return [id for id in told if len(id) == 16 and id not in there]


def run(n=N, folder=None):
    "All figures of a memory of n items"
    command = "python -m bench memory million" if n == N else f"python -m bench.memory_million {n}"
    def made(what, ours, unit, **limits): return entry(f"{n:,} items, {what}", ours, unit, DATA, command, **limits)

    with tempfile.TemporaryDirectory(prefix="memory_") as own:
        home = Path(folder or own)/"memory"
        if not home.exists():
            costs = build(home, n)
            yield made("entered", costs["enter"], "CPU s")
            yield made("indexed", costs["index"], "CPU s")
            yield made("indexed, on the wall", costs["index_wall"], "s")
            yield made("most memory of the process that indexes", costs["peak_gb"], "GB", most=4)
        sizes = on_disk(home)
        for kind, size in sizes.items():
            yield made(f"bytes on disk, {kind}", size / 1e9, "GB", most=1 if kind == "in all" else None)
        looks = looked_up(home, n)
        for when in ("opened", "after"):
            for kind in ("own", "mapped"):
                yield made(f"resident, {kind}, {when} 2,200 look-ups".replace("opened 2,200", "before"),
                           (looks[when][kind] - looks["empty"][kind]) / 1e9, "GB")
        for kind, name in (("copy", "look-up of a copy"), ("new", "look-up of a new post"), ("near", "ten neighbours")):
            for q in (50, 95): yield made(f"{name}, p{q}", np.percentile(looks[kind], q), "ms", most=5)
        yield made("look-up of a new post on the wall, p50", np.percentile(looks["wall"], 50), "ms")
        yield made("copies found by their picture", looks["recall"], "recall", least=0.999)
        yield made("new posts told as copies", looks["false"], "share", most=0.001)
        yield made("ten nearest vectors", ten_nearest(home, n), "recall", least=0.9)
        yield from served(home, made)


def served(home, made):
    "Four clients at once, and the same killed"
    said = clients(home)
    for what in ("remember", "recall"):
        rows = [row for row in said if row[0] == what]
        own, wall = (np.percentile([float(row[at]) for row in rows], 95) for at in (1, 2))
        yield made(f"{CLIENTS} clients at once, {what}", len(rows) / SECONDS, "a second")
        yield made(f"{CLIENTS} clients at once, {what}, p95 of CPU", own, "ms")
        yield made(f"{CLIENTS} clients at once, {what}, p95 on the wall", wall, "ms")
    wrong = [row for row in said if row[0] == "recall" and row[3] != "True"]
    yield made("remembered and not recalled at once", len(wrong), "items", most=0)
    told = [row[3] for row in said if row[0] == "remember"]
    told += [row[3] for row in clients(home, kill_after=6) if row[0] == "remember"]
    yield made("acknowledged", len(told), "items")
    yield made("acknowledged and lost after SIGKILL", len(lost(home, told)), "items", most=0)


if __name__ == "__main__":
    reader = argparse.ArgumentParser()
    reader.add_argument("n", nargs="?", type=int, default=N)
    reader.add_argument("--keep")
    reader.add_argument("--client", nargs=2)
    asked = reader.parse_args()
    if asked.client: client(asked.client[0], int(asked.client[1]))
    else:
        for one in run(asked.n, asked.keep):
            print(f"{one['name']:75} {one['ours']:10.4g} {one['unit']:10} {' '.join(one['broken'])}", flush=True)
