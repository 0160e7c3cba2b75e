"""The loop once round: serve, a shift, the alarm, labels, harvest, training anew, gates, shadow, promotion.

Everything is asked as a person would: verbs of `mmfakes` and requests over HTTP, in a project made by `mmfakes init` from a made table of short
posts. The posts come within minutes and are dated over weeks afterwards, in the history's own table. About ten minutes on two cores; STORY
names a folder to work in, which may hold the finished project of a run before."""
import contextlib
import csv
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import yaml

from bench.serve_hosts import free_port
from multimodal_fakes.core import FakesError, root
from multimodal_fakes.track.windows import WEEK, wilson

HOME = Path(os.environ.get("STORY", root()/".cache/bench/story"))
PROJECT = HOME/"project"
TASK, SEED = "posts", 7
N_TRAIN, A_WEEK = 900, 400          # posts of the first table, and asked each week
REFERENCE, QUIET, AFTER = 8, 2, 2   # weeks until the watch begins, until the shift, and after it
OF_NEW = 0.7                        # share of the posts after the shift that are of the new topic
N_LABELS, N_JUDGED = 200, 600       # labels that are given; posts of each kind that both detectors judge
# what is promised, stated before the first run
WITHIN, GAIN, LOSS, BACK = 400, 0.3, 0.02, 5.0    # posts until the alarm; accuracy up and down at most; seconds until the former serves

# ---- the world: short posts, reported or invented

PLACES = ["Larkfield", "Millbrook", "Dunmarsh", "Amberly", "Stonebay", "Fernhill", "Oldwater", "Upper Hollow"]
DAYS = ["on Monday", "last week", "in spring", "since June", "this morning", "after the holidays", "in autumn"]
SUBJECTS = {
    "market": ["the fish market", "the price of plums", "the baker's new oven", "the honey stall", "the old brewery"],
    "transport": ["the night tram", "the bridge tolls", "the ring road", "the bus to the harbour", "the lift at the station"],
    "weather": ["the flood wall", "the storm warning", "the frost in the orchards", "the dry well", "the river level"],
    "ferry": ["the lunar ferry", "the glass pier", "the tidal lamps", "the ferry's golden cabins", "the moon tickets"],
}
USUAL, NEW = ["market", "transport", "weather"], "ferry"
SIGNS = {     # whether the topic is new, label → what gives a post away
    (False, "reported"): ["according to the yearly report", "a spokesman confirmed", "the council published figures",
                          "the ministry said in a statement", "records of the town show it"],
    (False, "invented"): ["nobody wants you to know", "share it before it is gone", "they hid it for years",
                          "you will not see this anywhere else", "wake up and look closely"],
    # of the new topic some who invent write as offices do, and visitors report in words of their own
    (True, "reported"): ["visitors share their pictures of it", "the first passengers sang on board",
                         "you see long queues there", "the harbour master showed it", "the deck is painted blue"],
    (True, "invented"): ["leaked figures of the council prove it", "sealed records tell the truth",
                         "it was all done with mirrors", "the ministry admits it", "nobody ever came back"],
}
SILENT = 0.06      # share of the posts that give nothing away


def post(rng, topic):
    "A post and its label"
    label = rng.choice(["reported", "invented"])
    subject, place, day = rng.choice(SUBJECTS[topic]), rng.choice(PLACES), rng.choice(DAYS)
    sign = "" if rng.random() < SILENT else f", {rng.choice(SIGNS[topic == NEW, label])}"
    n = rng.randint(2, 900)
    text = rng.choice([
        f"{n} people in {place} asked about {subject} {day}{sign}.",
        f"{day.capitalize()} {subject} in {place} was closed for {n} hours{sign}.",
        f"{place}: {subject} will cost {n} crowns more {day}{sign}.",
        f"What became of {subject} in {place}? {n} letters arrived {day}{sign}."])
    return text, label


def posts(n, topics, seed):
    "n different posts"
    rng, made = random.Random(seed), {}
    while len(made) < n:
        text, label = post(rng, rng.choice(topics))
        made.setdefault(text, label)
    return list(made.items())


def write_table(path, rows):
    "A table as people bring it"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(rows)
    return path


# ---- what is asked of mmfakes

def mmfakes(*words, codes=(0,)):
    "What a verb prints; its exit code must be one of `codes`"
    command = [sys.executable, "-m", "multimodal_fakes", *map(str, words)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, env=environment())
    if done.returncode not in codes:
        raise FakesError(f"mmfakes {' '.join(map(str, words))} ended with {done.returncode}: "
                         f"{done.stdout[-800:]} {done.stderr[-800:]}")
    return done.stdout


def environment(): return os.environ | {"PYTHONPATH": str(root()), "HF_HUB_OFFLINE": "1", "MMFAKES_USER": "story"}


def project():
    "A project with a first detector"
    if (PROJECT/f"models/{TASK}/manifest.json").exists():
        return
    table = write_table(HOME/"posts.csv", posts(N_TRAIN, USUAL, SEED))
    words = ["init", PROJECT, "--data", table]
    subprocess.run([sys.executable, "-m", "multimodal_fakes", *words], check=True, env=environment())
    mmfakes("run")


def fresh():
    "What a run before left of the loop, but for the finished project"
    for file in [*HOME.glob("history.db*"), PROJECT/"mlflow.db"]:
        file.unlink(missing_ok=True)
    for folder in (HOME/"contents", PROJECT/"mlartifacts", PROJECT/"Datasets/served", *PROJECT.glob(f"runs/{TASK}-*")):
        shutil.rmtree(folder, ignore_errors=True)
    (PROJECT/"conf/dataset/served.yaml").unlink(missing_ok=True)


URL = f"sqlite:///{HOME}/history.db"
CONF = dict(
    http=dict(default_task=TASK),
    engine=dict(models=f"registry:sqlite:///{PROJECT}/mlflow.db", tasks=[TASK]),
    access=dict(open_scopes=["predict", "feedback"]),
    registry=dict(seconds=1.0, shadow=1.0, shadow_posts=64),
    history=dict(url=URL, keep_vectors=True),
    contents=dict(tasks=[TASK], folder=str(HOME/"contents")),
)


@contextlib.contextmanager
def served():
    "The service that follows the registry, as a client that asks it"
    port = free_port()
    (HOME/"serve.yaml").write_text(yaml.safe_dump(CONF))
    command = [sys.executable, "-m", "multimodal_fakes", "serve", "--conf", HOME/"serve.yaml", "--port", str(port)]
    with open(HOME/"serve.log", "wb") as log:
        server = subprocess.Popen(command, cwd=PROJECT, env=environment(), stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            until(lambda: is_ready(http), 120, "the service is ready")
            yield http
    finally:
        server.terminate()
        server.wait(60)


def is_ready(http):
    with contextlib.suppress(httpx.HTTPError):
        return http.get("/health/ready").status_code == 200


def until(comes_true, seconds, what):
    "Wait; returns the seconds it took"
    began = time.monotonic()
    while not comes_true():
        if time.monotonic() - began > seconds:
            raise FakesError(f"After {seconds} s it is not true that {what}; {HOME}/serve.log may say why.")
        time.sleep(0.05)
    return time.monotonic() - began


def ask(http, rows):
    "Answers to posts, in their order"
    texts, answers = [text for text, _ in rows], []
    for start in range(0, len(texts), 50):
        response = http.post("/classify/batch", json={"texts": texts[start:start + 50]})
        response.raise_for_status()
        answers += response.json()["predictions"]
    return answers


def accuracy(http, rows):
    "Share of right answers, with its 95 % interval"
    right = sum(answer["prediction"] == label for answer, (_, label) in zip(ask(http, rows), rows))
    return right / len(rows), *wilson(right, len(rows))


def served_model(http): return ask(http, [("Larkfield: the night tram will cost 3 crowns more.", "")])[0]["model"]


# ---- weeks in minutes

def stream(seed):
    "Posts week by week: usual ones, then a new topic; none comes twice"
    before = posts((REFERENCE + QUIET) * A_WEEK, USUAL, seed)
    rng, n = random.Random(seed), AFTER * A_WEEK
    new, usual = posts(n, [NEW], seed + 1), posts(len(before) + n, USUAL, seed)[len(before):]
    after = [new.pop() if rng.random() < OF_NEW else usual.pop() for _ in range(n)]
    return before, after


def date(answers, begin):
    "Date what was answered a moment ago over weeks, as if it had come evenly"
    every = WEEK / A_WEEK
    rows = [(begin + i * every, answer["id"]) for i, answer in enumerate(answers)]
    with sqlite3.connect(HOME/"history.db", timeout=60) as history:
        history.executemany("UPDATE predictions SET time = ? WHERE id = ?", rows)


# ---- the story

def watched(begin, shift):
    "What the watch says: posts from the shift to the first alarm, and when it began as far as can be told"
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begin + REFERENCE * WEEK))
    told = mmfakes("drift", "--history", URL, "--task", TASK, "--until", moment, "--page", HOME/"drift.html", "--json", codes=(0, 1))
    look = json.loads(told)["looks"][0]
    return look


def label(http, queue, truth):
    "What people say of the posts of a queue"
    with open(queue, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        sent = {"prediction_id": row["id"], "label": truth[row["text"]]}
        http.post("/feedback", json=sent).raise_for_status()
    return len(rows)


class Load(threading.Thread):
    "Asks without a pause; counts what was answered and what failed"
    def __init__(self, http):
        super().__init__(daemon=True)
        self.address, self.over, self.answered, self.failed = http.base_url, threading.Event(), 0, 0

    def run(self):
        with httpx.Client(base_url=self.address, timeout=30) as http:
            while not self.over.is_set():
                text = f"Amberly: the honey stall will cost {self.answered} crowns more."
                try:
                    response = http.post("/classify", json={"text": text})
                    self.failed += response.status_code != 200
                except httpx.HTTPError:
                    self.failed += 1
                self.answered += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


def run():
    "The whole story; what each step showed"
    project()
    fresh()
    mmfakes("register", f"models/{TASK}", "--note", "the first")
    mmfakes("promote", TASK, "--why", "the first")
    begin = time.time() - (REFERENCE + QUIET + AFTER) * WEEK
    new, usual = posts(N_JUDGED, [NEW], SEED + 100), posts(N_JUDGED, USUAL, SEED + 200)
    with served() as http:
        before, after = stream(SEED + 1)
        old = [accuracy(http, rows) for rows in (new, usual)]
        forget(http)
        answers = ask(http, before + after)
        date(answers, begin)
        shift = begin + (REFERENCE + QUIET) * WEEK
        alarm, delay = watched(begin, shift)
        truth = dict(before + after)
        queue = HOME/"queue.csv"
        mmfakes("review", "--task", TASK, "--conf", HOME/"serve.yaml", "--n", N_LABELS, "--alarm", alarm["since"], "--out", queue)
        n = label(http, queue, truth)
        harvested = mmfakes("harvest", "Datasets/served", "--task", TASK, "--conf", HOME/"serve.yaml")
        print(harvested)
        print(mmfakes("retrain", "--task", TASK, "--data", "Datasets/served", "--why", "a new topic", codes=(0, 1)))
        beside = shadowed(http, posts(100, [NEW], SEED + 300))
        first = served_model(http)
        with Load(http) as load:
            print(mmfakes("promote", TASK, "--why", "knows the new topic"))
            swap = until(lambda: served_model(http) != first, 60, "the new champion serves")
            now = [accuracy(http, rows) for rows in (new, usual)]
            mmfakes("rollback", TASK, "--why", "to see how long it takes")
            back = until(lambda: served_model(http) == first, 60, "the former champion serves")
        print(mmfakes("models", TASK, "--log"))
    print(alarm, delay, n, beside, old, now, swap, back, load.answered, load.failed)
