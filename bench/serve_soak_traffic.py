"What is sent during a soak, each kind with its weight: a function of a scene and of numbers drawn from a seed"
import os
import threading
import time
from contextlib import contextmanager, suppress
from functools import cache

from bench.serve_made import draw_clip
from bench.serve_posts import with_comment
from bench.serve_scene import body_of
from bench.serve_strangers import (
    ABSURD,
    FOREIGN,
    MANY,
    TOO_MANY,
    cancel,
    clip_as_job,
    damaged_posts,
    half_body,
    hang_up,
    json_bodies,
    keep_open,
    locked,
    picture_of_scans,
    read_slowly,
    scans_clip,
)

LONGEST = 100       # seconds that a client asks about its job


# ---- honest
def text_of(rng):
    "A headline"
    return f"A headline of number {rng.randrange(10**9)}"

def picture_of(scene, rng):
    "A file of a form"
    picture = with_comment(scene.stock.pictures[rng.randrange(len(scene.stock.pictures))], rng.randrange(10**9))
    return "a.jpg", "image/jpeg", picture

def post_text(scene, rng):
    "One text"
    scene.send(scene.json("/classify", {"text": text_of(rng)}))

def post_picture(scene, rng):
    "One picture"
    scene.send(scene.form("/predict", {"image": picture_of(scene, rng)}))

def post_pair(scene, rng):
    "Text and picture"
    scene.send(scene.form("/predict", {"text": text_of(rng), "image": picture_of(scene, rng)}))

def post_batch(scene, rng):
    "Eight texts"
    scene.send(scene.json("/classify/batch", {"texts": [text_of(rng) for _ in range(8)]}))

@cache
def short_clip(seed):
    "One of a few clips of four seconds"
    return draw_clip(seed)

def post_video(scene, rng):
    "A clip as a job, asked about until it has ended, at any of the copies"
    clip = short_clip(rng.randrange(4)) + b"\0\0\0\x10free" + os.urandom(8)
    job = clip_as_job(scene, clip)
    until = time.monotonic() + LONGEST
    while job and time.monotonic() < until:
        port = rng.choice(scene.others).port
        status, answer = scene.send(scene.get(f"/jobs/{job}"), port=port)
        if status != 200 or body_of(answer).get("state") not in ("queued", "running"):
            return
        time.sleep(1)

def say_wrong(scene, rng):
    "A text, and what it should have been"
    _, answer = scene.send(scene.json("/classify", {"text": text_of(rng)}))
    said = body_of(answer)
    if said.get("id"):
        scene.send(scene.json("/feedback", {"prediction_id": said["id"], "label": said["prediction"]}))

def ask_metrics(scene, rng):
    "As Prometheus does"
    scene.send(scene.get("/metrics"))

def ask_health(scene, rng):
    "As a balancer does"
    scene.send(scene.get(rng.choice(("/health", "/health/live", "/health/ready"))))

HONEST = {      # name → weight, function
    "text": (40, post_text),
    "picture": (15, post_picture),
    "text and picture": (15, post_pair),
    "batch": (8, post_batch),
    "video": (4, post_video),
    "feedback": (8, say_wrong),
    "metrics": (4, ask_metrics),
    "health": (6, ask_health),
}


# ---- hostile
def one_bomb(scene, rng):
    "A picture of many scans, or of too many"
    scene.send(picture_of_scans(scene, rng.choice((TOO_MANY, MANY))))

def one_long_job(scene, rng):
    "A clip of such pictures; half of them are cancelled a little later"
    job = clip_as_job(scene, scans_clip() + os.urandom(8))
    if job and rng.random() < 0.5:
        time.sleep(3)
        cancel(scene, job)

def jobs_cancelled(scene, rng):
    "Three clips of 8 MB, cancelled at once"
    for _ in range(3):
        job = clip_as_job(scene, b"\0\0\0\x20ftypisom" + os.urandom(8 * 2**20))
        if job:
            cancel(scene, job)

def one_json(scene, rng):
    "A body of 4 MB"
    path, body = rng.choice(sorted(json_bodies().items()))[1]
    scene.send(scene.json(path, body))

def several(n, work):
    "So many clients at once"
    def one():
        with suppress(OSError):
            work()
    clients = [threading.Thread(target=one, daemon=True) for _ in range(n)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()

def some_halves(scene, rng):
    "Ten bodies that are never whole"
    several(10, lambda: half_body(scene, 2))

def some_idle(scene, rng):
    "Two hundred connections that say nothing"
    held = []
    while scene.goes_on():
        keep_open(held, scene.host.port, 200)
        time.sleep(0.5)
    for s in held:
        s.close()

def some_gone(scene, rng):
    "Ten posts whose senders hang up"
    for _ in range(10):
        hang_up(scene, picture_of(scene, rng)[2])

def some_slow(scene, rng):
    "Ten readers who hardly read"
    several(10, lambda: read_slowly(scene, 30))

def flood(scene, rng):
    "A hundred and fifty texts, ten at once"
    texts = iter([text_of(rng) for _ in range(150)])
    lock = threading.Lock()
    def post():
        while True:
            with lock:
                text = next(texts, None)
            if text is None:
                return
            scene.send(scene.json("/classify", {"text": text}))
    several(10, post)

def batches(scene, rng):
    "Five batches of 64"
    for _ in range(5):
        scene.send(scene.json("/classify/batch", {"texts": [text_of(rng) for _ in range(64)]}))

def damaged(scene, rng):
    "Damaged files, alone and beside texts"
    for raw in damaged_posts(scene):
        scene.send(raw)

def foreign(scene, rng):
    "Other hosts, a form of another site, forged addresses"
    raw = scene.json("/classify", {"text": text_of(rng)})
    for host in FOREIGN:
        scene.send(raw.replace(b"Host: 127.0.0.1", f"Host: {host}".encode()))
    cross = {"Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"}
    scene.send(scene.form("/predict", {"text": "a"}, **cross))
    for _ in range(20):
        address = ".".join(str(rng.randrange(256)) for _ in range(4))
        scene.send(scene.json("/classify", {"text": text_of(rng)}, **{"X-Forwarded-For": address}))

def absurd(scene, rng):
    "Settings of a run that nobody could mean"
    for body in ABSURD.values():
        scene.send(scene.json("/train/text", body))

def begin_run(scene, rng):
    "A training run that is cancelled after some seconds"
    _, answer = scene.send(scene.json("/train/text", {"task": "clickbait", "settings": {"epochs": 300}}))
    run = body_of(answer).get("run_id")
    if run:
        time.sleep(6)
        scene.send(scene.get(f"/train/{run}", "DELETE"))

@contextmanager
def held_tables(url):
    "A PostgreSQL in which another program holds all tables"
    import psycopg
    with psycopg.connect(url) as other:
        names = other.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        tables = ", ".join(f'"{name}"' for name, in names)
        other.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
        yield
        other.rollback()

def lock_history(scene, rng):
    "Another program holds the database of the history for three seconds"
    is_file = scene.url.startswith("sqlite")
    with locked(scene.stock.home/"soak.db") if is_file else held_tables(scene.url):
        time.sleep(3)

HOSTILE = {
    "pictures of scans": (2, one_bomb),
    "clips of scans": (2, one_long_job),
    "cancelled jobs": (2, jobs_cancelled),
    "JSON of 4 MB": (3, one_json),
    "half bodies": (1, some_halves),
    "idle connections": (1, some_idle),
    "hang up": (2, some_gone),
    "slow readers": (1, some_slow),
    "flood": (2, flood),
    "batches": (2, batches),
    "damaged files": (2, damaged),
    "foreign": (2, foreign),
    "absurd settings": (1, absurd),
    "training": (1, begin_run),
    "locked history": (1, lock_history),
}
