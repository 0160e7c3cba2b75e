"""The loop once round: serve, a shift, the alarm, labels, harvest, training anew, gates, shadow, promotion, rollback.

Everything is asked as a person would: verbs of `mmfakes` and requests over HTTP, in a project that `mmfakes init` makes
from a made table of short posts. The posts come within minutes and are dated over weeks afterwards, in the history's
own table. STORY names a folder to work in; the finished project of a run before is taken from there."""
import calendar
import contextlib
import csv
import json
import os
import platform
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
from multimodal_fakes.core import FakesError, read_json, root
from multimodal_fakes.service.history import History, HistoryConf
from multimodal_fakes.track.gates import rollback
from multimodal_fakes.track.registry import Registry
from multimodal_fakes.track.shadow import shadow_of
from multimodal_fakes.track.windows import WEEK

HOME = Path(os.environ.get("STORY", root()/".cache/bench/story"))
PROJECT = HOME/"project"
TASK, SEED = "posts", 7
N_TRAIN, A_WEEK = 900, 400          # posts of the first table, and asked each week
REFERENCE, QUIET, AFTER = 8, 2, 2   # weeks until the watch begins, until the shift, and after it
OF_NEW = 0.7                        # share of the posts after the shift that are of the new topic
N_LABELS, N_JUDGED = 200, 600       # labels that are given; posts of each kind that both detectors judge
# what is promised, stated before the first run
WITHIN = 400                        # posts from the shift to the alarm
GAIN, LOSS = 0.3, 0.02              # of accuracy on posts of the new topic, at least; on usual ones, at most
BACK = 5.0                          # seconds until the former detector serves after a rollback

# ---- the world: short posts, reported or invented

PLACES = ["Larkfield", "Millbrook", "Dunmarsh", "Amberly", "Stonebay", "Fernhill", "Oldwater", "Upper Hollow"]
DAYS = ["on Monday", "last week", "in spring", "since June", "this morning", "after the holidays", "in autumn"]
SUBJECTS = {
    "market": ["the fish market", "the price of plums", "the baker's new oven", "the honey stall", "the old brewery"],
    "transport": ["the night tram", "the bridge tolls", "the ring road", "the harbour bus", "the station's lift"],
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

REGISTRY = f"mlflow:sqlite:///{PROJECT}/mlflow.db"
URL = f"sqlite:///{HOME}/history.db"
CONF = dict(
    http=dict(default_task=TASK),
    engine=dict(models=REGISTRY.replace("mlflow:", "registry:"), tasks=[TASK]),
    access=dict(open_scopes=["predict", "feedback"]),
    registry=dict(seconds=1.0, shadow=1.0, shadow_posts=64),
    history=dict(url=URL, keep_vectors=True),
    contents=dict(tasks=[TASK], folder=str(HOME/"contents")),
)


def environment():
    own = {"PYTHONPATH": str(root()), "HF_HUB_OFFLINE": "1", "MMFAKES_USER": "story", "MMFAKES_REGISTRY": REGISTRY}
    return os.environ | own


def mmfakes(*words, codes=(0,), folder=PROJECT):
    "What a verb prints; its exit code must be one of `codes`"
    command = [sys.executable, "-m", "multimodal_fakes", *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment())
    if done.returncode not in codes:
        said = f"{done.stdout[-800:]} {done.stderr[-800:]}"
        raise FakesError(f"mmfakes {' '.join(map(str, words))} ended with {done.returncode}: {said}")
    return done.stdout


def project():
    "A project with a first detector, which is the champion; nothing of a story before"
    if not (PROJECT/f"models/{TASK}/manifest.json").exists():
        table = write_table(HOME/"posts.csv", posts(N_TRAIN, USUAL, SEED))
        mmfakes("init", PROJECT, "--data", table, folder=HOME)
        mmfakes("run")
    for file in [*HOME.glob("history.db*"), PROJECT/"mlflow.db", PROJECT/"conf/dataset/served.yaml"]:
        file.unlink(missing_ok=True)
    left = [HOME/"contents", PROJECT/"mlartifacts", PROJECT/"Datasets/served", *PROJECT.glob(f"runs/{TASK}-*")]
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    mmfakes("register", f"models/{TASK}", "--note", "the first")
    mmfakes("promote", TASK, "--why", "the first")


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
    answers = []
    for start in range(0, len(rows), 50):
        texts = [text for text, _ in rows[start:start + 50]]
        response = http.post("/classify/batch", json={"texts": texts})
        response.raise_for_status()
        answers += response.json()["predictions"]
    return answers


def version_served(http): return ask(http, [("Larkfield: the night tram will cost 3 crowns more.", "")])[0]["version"]


def measured(version, name, rows):
    "Accuracy of a version of the registry, with its 95 % interval"
    table, metrics = write_table(HOME/f"{name}.csv", rows), HOME/f"{name}.json"
    judged = HOME/f"{name}_judged.csv"
    mmfakes("batch", table, judged, "--model", version, "--label-column", "label", "--metrics", metrics)
    made = read_json(metrics)
    return tuple(made[f"accuracy{end}"] for end in ("", "_low", "_high"))


# ---- weeks in minutes

def stream(seed):
    "Posts before the shift and after it; none comes twice"
    before, after = (REFERENCE + QUIET) * A_WEEK, AFTER * A_WEEK
    usual, new = posts(before + after, USUAL, seed), posts(after, [NEW], seed + 1)
    rng = random.Random(seed)
    return usual[:before], [new.pop() if rng.random() < OF_NEW else usual.pop() for _ in range(after)]


def date(answers, begin):
    "Date what was answered a moment ago over weeks, as if it had come evenly"
    times = [(begin + i * WEEK / A_WEEK, answer["id"]) for i, answer in enumerate(answers)]
    with contextlib.closing(sqlite3.connect(HOME/"history.db", timeout=60)) as history, history:
        history.executemany("UPDATE predictions SET time = ? WHERE id = ?", times)


def spoken(seconds): return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def seconds_of(moment): return calendar.timegm(time.strptime(moment, "%Y-%m-%d %H:%M UTC"))


def first_alarm(begin):
    "The first alarm, and how many posts came from the shift until it"
    words = ["--history", URL, "--task", TASK, "--until", spoken(begin + REFERENCE * WEEK)]
    look = json.loads(mmfakes("drift", *words, "--page", HOME/"drift.html", "--json", codes=(0, 1)))["looks"][0]
    if not look["alarms"]:
        raise FakesError(f"The watch has not noticed the shift: {look['words']}")
    first = look["alarms"][0]
    shift = begin + (REFERENCE + QUIET) * WEEK
    return look, first, (seconds_of(first["raised"]) - shift) / WEEK * A_WEEK


def label(http, queue, truth):
    "What people say of the posts of a queue; returns how many they are"
    with open(queue, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        http.post("/feedback", json={"prediction_id": row["id"], "label": truth[row["text"]]}).raise_for_status()
    return len(rows)


def shadowed(http, rows):
    "How the candidate compares with the champion on posts that both judged: the summary of `track.shadow`"
    began = time.time()
    truth = dict(rows)
    for start in range(0, len(rows), 20):
        for answer, (text, _) in zip(ask(http, rows[start:start + 20]), rows[start:start + 20]):
            http.post("/feedback", json={"prediction_id": answer["id"], "label": truth[text]}).raise_for_status()
        time.sleep(1)       # the candidate has one worker, at the lowest priority
    with contextlib.closing(History(HistoryConf(url=URL))) as history:
        until(lambda: len(history.shadows(TASK, began)) >= len(rows) / 2, 60, "the candidate judged half of the posts")
        return shadow_of(history.shadows(TASK, began)).iloc[-1].to_dict()


class Load(threading.Thread):
    "Asks without a pause; counts what was answered and what failed"
    def __init__(self, http):
        super().__init__(daemon=True)
        self.address, self.over, self.asked, self.failed = http.base_url, threading.Event(), 0, 0

    def run(self):
        with httpx.Client(base_url=self.address, timeout=30) as http:
            while not self.over.is_set():
                self.asked += 1
                self.failed += not self.is_answered(http)

    def is_answered(self, http):
        text = f"Amberly: the honey stall will cost {self.asked} crowns more."
        with contextlib.suppress(httpx.HTTPError):
            return http.post("/classify", json={"text": text}).status_code == 200
        return False

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


# ---- the story

def told(http, begin):
    "From the first post to a candidate: what was seen on the way"
    before, after = stream(SEED + 1)
    date(ask(http, before + after), begin)
    look, alarm, delay = first_alarm(begin)
    print(f"alarm: {alarm['words']}\n  {delay:.0f} posts after the shift; kind {look['kind']}", flush=True)
    queue, conf = HOME/"queue.csv", ["--task", TASK, "--conf", HOME/"serve.yaml"]
    since = spoken(seconds_of(alarm["since"]))
    print(mmfakes("review", *conf, "--n", N_LABELS, "--alarm", since, "--out", queue), end="")
    n = label(http, queue, dict(before + after))
    print(f"{n} labels given\n{mmfakes('harvest', 'Datasets/served', *conf)}", flush=True)
    print(mmfakes("retrain", "--task", TASK, "--data", "Datasets/served", "--why", "a new topic"), flush=True)
    return delay


def exchanged(http):
    "Promotion and rollback while others ask: seconds from the order to the first answer, and requests asked and failed"
    former = version_served(http)
    with Load(http) as load:
        print(mmfakes("promote", TASK, "--why", "knows the new topic"), flush=True)
        forth = until(lambda: version_served(http) != former, 120, "the new champion serves")
        began = time.monotonic()
        rollback(Registry(REGISTRY), TASK, why="to see how long it takes")
        until(lambda: version_served(http) == former, 60, "the former champion serves")
        back = time.monotonic() - began
    return forth, back, load.asked, load.failed


def run():
    "The whole story, with what each step showed"
    HOME.mkdir(parents=True, exist_ok=True)
    project()
    new, usual = posts(N_JUDGED, [NEW], SEED + 100), posts(N_JUDGED, USUAL, SEED + 200)
    begin = time.time() - (REFERENCE + QUIET + AFTER) * WEEK
    with served() as http:
        delay = told(http, begin)
        beside = shadowed(http, posts(100, [NEW], SEED + 300))
        print(f"shadow: {beside}", flush=True)
        forth, back, asked, failed = exchanged(http)
    kinds = {"new": new, "usual": usual}
    old, now = ({kind: measured(f"{TASK}@{k}", kind, rows) for kind, rows in kinds.items()} for k in (1, 2))
    print(f"accuracy before: {old}\nafter: {now}\n{mmfakes('models', TASK, '--log')}")
    print(f"the candidate served {forth:.1f} s after it was promoted, the former {back:.1f} s after the order; "
          f"{failed} of {asked} requests failed")
    (old_new, old_usual), (now_new, now_usual) = ([of[kind][0] for kind in kinds] for of in (old, now))
    return [
        _entry("posts until the alarm", delay, WITHIN, "posts", delay <= WITHIN),
        _entry("accuracy on the new topic", now_new, old_new, "share", now_new >= old_new + GAIN),
        _entry("accuracy on usual posts", now_usual, old_usual, "share", now_usual >= old_usual - LOSS),
        _entry("seconds to the former detector", back, BACK, "s", back <= BACK),
        _entry("requests that failed meanwhile", failed, asked, "requests", failed == 0),
    ]


def _entry(name, ours, peer, unit, holds):
    "One figure as results.json keeps it; the peer is what was before, or the limit"
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, no GPU"
    data = f"{(REFERENCE + QUIET + AFTER) * A_WEEK} made posts, {N_LABELS} labels"
    broken = [] if holds else [f"story, {name}: {ours:.3g} beside {peer:.3g}"]
    return dict(name=f"story, {name}", ours=ours, peer=peer, unit=unit, ratio=ours / peer if peer else None,
                machine=machine, data=data, seed=SEED, broken=broken)
