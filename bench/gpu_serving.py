"""`python -m bench.gpu_serving`: posts a second on a GPU, of the library, of a table and of the service.

DistilBERT (66 M weights) and EfficientNet-B0 with weights drawn by chance, a fusion trained on what they give, posts of
a title and a JPEG of 400 × 300. Every part prints what it measures and stands alone: one that fails is told, and the
next begins. `--device cpu --posts 64 --layers 1` rehearses all of it without a GPU."""
import argparse
import io
import json
import os
import sys
import tempfile
import threading
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from bench.serve_posts import TASK, draw_photo, make_texts, with_comment
from multimodal_fakes.service.load import FORM, as_form, drive, multipart, request

ALLOWED = dict(difference=0.05, flips=0.003)      # the gates of the stage export, of a variant
CLIENTS = 256
KEPT = 16               # posts of a request to /predict/batch


def say(*words):
    "Print with the seconds since the start"
    print(f"[{time.perf_counter() - BEGAN:6.1f} s]", *words, flush=True)

BEGAN = time.perf_counter()


class Posts:
    "Titles, and pictures drawn once; no post is the same as another"
    def __init__(self, n, pictures=64):
        rng = np.random.default_rng(7)
        self.texts = make_texts(n, 100)
        self.pictures = [small_photo(rng, i % 2) for i in range(min(n, pictures))]
        self.kb = float(np.mean([len(p) for p in self.pictures]) / 1024)

    def __len__(self):
        return len(self.texts)

    def some(self, n, seed=0):
        "The first n as a detector takes them, other bytes for each seed"
        picture = lambda i: with_comment(self.pictures[i % len(self.pictures)], f"{seed}.{i}")
        return [dict(text=text, image=picture(i)) for i, text in enumerate(self.texts[:n])]

def small_photo(rng, warm):
    "JPEG of 400 × 300"
    picture = Image.open(io.BytesIO(draw_photo(rng, warm))).resize((400, 300))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=85)
    return out.getvalue()

def rate(function, n, seconds=0.0):
    "Posts a second of something that judges n posts, done again until some seconds are over"
    began, done = time.perf_counter(), 0
    while not done or time.perf_counter() - began < seconds:
        function()
        done += n
    return done / (time.perf_counter() - began)

def synchronised(detector):
    "Wait for what was sent to a GPU"
    import torch
    if detector.device.startswith("cuda"):
        torch.cuda.synchronize()


# ---- the parts
def machine(asked):
    "Where this runs"
    import torch

    from multimodal_fakes.core import describe_device
    versions = {name: getattr(sys.modules.get(name) or __import__(name), "__version__", "")
                for name in ("torch", "transformers", "timm", "onnxruntime", "PIL", "numpy")}
    about = dict(device=describe_device(asked.device), cores=len(os.sched_getaffinity(0)), versions=versions)
    if torch.cuda.is_available():
        about["gpu_gb"] = round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1)
    return about

def make(asked):
    "The bundle"
    from bench.serve_made import make_detector
    from bench.serve_posts import make_posts
    folder, _ = make_detector(asked.home/"models", make_posts(asked.known, 1), asked.layers)
    from multimodal_fakes.detect.predict import write_golden
    write_golden([load(asked, "float32")], folder)
    weights = sum(p.stat().st_size for p in folder.rglob("*.safetensors")) / 4e6
    return dict(folder=str(folder), million_weights=round(weights, 1))

def load(asked, precision, device=None):
    "The detector"
    from multimodal_fakes.detect.predict import Detector
    folder = asked.home/"models"/TASK
    return Detector.load(folder, "torch", device=device or asked.device, precision=precision)

def probabilities(detector, posts):
    "(n, C), and label (n,)"
    answers = detector.predict_batch(posts)
    return np.array([list(a["probabilities"].values()) for a in answers]), np.array([a["label"] for a in answers])

def compare(asked, posts):
    "How far answers are from those of a CPU in float32, for each precision"
    some = posts.some(min(len(posts), asked.compared))
    known, labels = probabilities(load(asked, "float32", "cpu"), some)
    out = dict(n=len(some), spread=float(known[:, 1].std()), fake=float((labels == 1).mean()))
    for precision in asked.precisions:
        probs, answered = probabilities(load(asked, precision), some)
        cost = dict(difference=float(np.abs(probs - known).max()), flips=float((answered != labels).mean()))
        passed = all(cost[k] <= most for k, most in ALLOWED.items())
        out[precision] = cost | dict(passed=passed)
        say(f"  {precision}: {cost}, gates {'passed' if passed else 'NOT passed'}")
    return out

def library(asked, posts):
    "Posts a second of each precision: prepared by all cores, judged by the networks, both in turn, both at once"
    some = posts.some(len(posts))
    out = {precision: library_rates(load(asked, precision), some, asked) for precision in asked.precisions}
    return out | dict(batch=asked.batch, posts=len(some))

def library_rates(detector, some, asked):
    "Of one precision"
    size = asked.batch
    batches = [some[i:i + size] for i in range(0, len(some), size)]
    ready = detector.in_threads(detector.prepare, some[:size])
    for _ in range(2):
        detector.judge_ready(ready)
    figures = dict(
        prepared=rate(lambda: detector.in_threads(detector.prepare, some), len(some)),
        judged=rate(lambda: detector.judge_ready(ready), len(ready), asked.seconds / 4),
        in_turn=rate(lambda: [detector.predict_batch(batch) for batch in batches], len(some)),
        at_once=rate(lambda: list(detector.answers_of(batches)), len(some), asked.seconds))
    say(f"  {detector.precision}:", {k: round(v) for k, v in figures.items()})
    return figures

def networks(asked, posts):
    "Posts a second that the networks alone judge, from tensors that lie on the device"
    import torch

    from multimodal_fakes.experts.encoder import placed, tensors
    out = {}
    for precision in asked.precisions:
        detector = load(asked, precision)
        ready = detector.in_threads(detector.prepare, posts.some(asked.batch))
        feeds = []
        for name, expert in detector.experts.items():
            items = [post.items[id(detector.readers[name])] for post in ready]
            feeds.append((expert, placed(tensors(expert.preprocessor.collate(items)), expert)))
        def forward(detector=detector, feeds=feeds):
            with torch.inference_mode(), detector.rounding():
                for expert, batch in feeds:
                    expert(**batch)
            synchronised(detector)
        for _ in range(3):
            forward()
        out[precision] = rate(forward, len(ready), asked.seconds / 4)
        say(f"  {precision}: {out[precision]:,.0f}")
    return out

def table(asked, posts):
    "Posts a second of `mmfakes batch`: a JSONL of texts and paths, judged and written"
    from multimodal_fakes.detect.batch import predict_table
    folder = asked.home/"table"
    folder.mkdir(exist_ok=True)
    with (folder/"posts.jsonl").open("w") as f:
        for i, post in enumerate(posts.some(len(posts), seed=3)):
            (folder/f"{i}.jpg").write_bytes(post["image"])
            f.write(json.dumps(dict(id=i, text=post["text"], image=f"{i}.jpg")) + "\n")
    out = {}
    for precision in asked.precisions:
        detector = load(asked, precision)
        detector.predict_batch(posts.some(asked.batch))
        began = time.perf_counter()
        counts = predict_table(detector, folder/"posts.jsonl", folder/"out.jsonl", batch_size=asked.batch)
        out[precision] = counts["judged"] / (time.perf_counter() - began)
        say(f"  {precision}: {out[precision]:,.0f}, {counts['judged']} judged, {counts['errors']} errors")
    return out

def processes(asked, posts):
    "Posts a second of `mmfakes batch --workers`: several processes on one device, the second half of the batches timed"
    from multimodal_fakes.detect.batch import answers_by
    detector = load(asked, asked.precisions[min(1, len(asked.precisions) - 1)])
    some = 2 * posts.some(len(posts), seed=5)
    batches = [some[i:i + asked.max_batch] for i in range(0, len(some), asked.max_batch)]
    began = time.perf_counter()
    for k, _ in enumerate(answers_by(detector, asked.workers, batches), 1):
        if k == len(batches) // 2:
            middle = time.perf_counter()
    rest = sum(map(len, batches[len(batches) // 2:]))
    figures = dict(workers=asked.workers, precision=detector.precision, steady=rest / (time.perf_counter() - middle),
                   with_start=len(some) / (time.perf_counter() - began))
    say("  ", figures)
    return figures


# ---- servers
def as_batch(posts):
    "Several posts to /predict/batch, each a text and a picture"
    fields = [("pair", "true")]
    for post in posts:
        fields += [("texts", post["text"]), ("files", ("post.jpg", "image/jpeg", post["image"]))]
    return request("/predict/batch", multipart(fields), FORM)

def asked_for(host, requests, n_posts):
    "What a load brought"
    load = drive(host.url, requests, clients=min(CLIENTS, len(requests)))
    figures = dict(
        statuses={str(k): v for k, v in load.statuses().items()},
        posts_a_second=load.rate * n_posts,
        p50_ms=load.quantile(.5) * 1000,
        p99_ms=load.quantile(.99) * 1000,
    )
    if set(load.statuses()) != {200}:
        bad = next(body for status, body in load.answers.values() if status != 200)
        figures["refused"] = bad[:300].decode("utf-8", "replace")
    return figures

RUNNING = []      # servers, to be ended where the time is over

@contextmanager
def started(host, seconds):
    "A server, given some seconds to become ready"
    RUNNING.append(host)
    try:
        yield host.start(seconds)
    finally:
        host.stop()
        RUNNING.remove(host)

def end():
    "Stop in the middle"
    say("no time left, ending")
    for host in RUNNING:
        host.stop()
    os._exit(3)

def service(asked, posts):
    "The HTTP service of this project"
    from bench.serve_hosts import Ours
    engine = dict(runtime="torch", device=asked.device, n_workers=asked.workers, max_batch=asked.max_batch,
                  max_queue=4096, request_seconds=60.0, memory_mb=0)
    host = Ours(asked.home, engine=engine)
    with started(host, asked.start) as seconds:
        say(f"  ready after {seconds:.1f} s")
        until_all(host, asked.workers, asked.start)
        asked_for(host, [as_form("/predict", p) for p in posts.some(8 * asked.workers, 11)], 1)       # warm
        singly = asked_for(host, [as_form("/predict", p) for p in posts.some(len(posts), 12)], 1)
        say("  one a request:", singly)
        some = posts.some(len(posts), 13)
        packed = [as_batch(some[i:i + KEPT]) for i in range(0, len(some) // KEPT * KEPT, KEPT)]
        together = asked_for(host, packed, KEPT)
        say(f"  {KEPT} a request:", together)
        models = json.loads(host.get("/models")[1])["models"][0]
    runs = {k: models.get(k) for k in ("runtime", "device", "precision")}
    return dict(ready_s=seconds, workers=asked.workers, max_batch=asked.max_batch, runs=runs,
                singly=singly, together=together)

def until_all(host, n, seconds):
    "Wait until every worker has loaded"
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        lines = host.get("/metrics")[1].decode().splitlines()
        there = [float(line.split()[-1]) for line in lines if 'what="workers"' in line]
        if there and there[0] >= n:
            return
        time.sleep(0.25)
    say("  not all workers came in time")

def litserve(asked, posts):
    "LitServe with the same detector on the same device"
    import importlib.util
    if importlib.util.find_spec("litserve") is None:
        return dict(skipped="litserve is not installed")
    from bench.serve_hosts import Host

    class Lit(Host):
        name = "litserve"

        def arguments(self):
            options = dict(port=self.port, runtime="torch", device=asked.device, workers=asked.lit_workers,
                           max_batch=asked.max_batch)
            words = [word for k, v in options.items() for word in ("--" + k.replace("_", "-"), v)]
            return ["multimodal_fakes.service.adapters", "litserve", self.home/"models"/TASK, *words]

    host = Lit(asked.home)
    with started(host, asked.start) as seconds:
        say(f"  ready after {seconds:.1f} s")
        asked_for(host, [as_form("/predict", p) for p in posts.some(8 * asked.lit_workers, 21)], 1)
        singly = asked_for(host, [as_form("/predict", p) for p in posts.some(len(posts) // 2, 22)], 1)
        say("  one a request:", singly)
    return dict(ready_s=seconds, workers=asked.lit_workers, max_batch=asked.max_batch, singly=singly)


PARTS = dict(compare=compare, library=library, processes=processes, service=service, litserve=litserve, table=table,
             networks=networks)

def measured(asked):
    "All parts, one after the other; what failed is told in its place"
    results = {}
    def tried(name, function, *args):
        say(name)
        try:
            results[name] = function(*args)
        except Exception as e:
            traceback.print_exc()
            results[name] = dict(error=f"{type(e).__name__}: {e}"[:500])
        asked.out.write_text(json.dumps(results, indent=1, default=str))
    tried("machine", machine, asked)
    say(" ", results["machine"])
    posts = Posts(asked.posts)
    say(f"{len(posts)} posts, pictures of {posts.kb:.0f} KB")
    tried("made", make, asked)
    for name in asked.parts:
        if time.perf_counter() - BEGAN > asked.limit - 20:
            results[name] = dict(skipped="no time left")
            continue
        tried(name, PARTS[name], asked, posts)
    asked.out.write_text(json.dumps(results, indent=1, default=str))
    return results

def arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--device", default="cuda")
    add("--posts", type=int, default=4096)
    add("--layers", type=int, default=6, help="of DistilBERT")
    add("--known", type=int, default=160, help="posts that the fusion is trained on")
    add("--compared", type=int, default=400, help="posts whose answers are compared with a CPU's")
    add("--batch", type=int, default=256)
    add("--seconds", type=float, default=4.0, help="that a rate is measured for")
    add("--workers", type=int, default=max(1, len(os.sched_getaffinity(0)) - 4), help="of the service")
    add("--lit-workers", type=int, default=4)
    add("--max-batch", type=int, default=32)
    add("--precisions", nargs="+", default=["float32", "bfloat16", "float16"])
    add("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    add("--start", type=float, default=75.0, help="seconds that a server may take to become ready")
    add("--limit", type=float, default=230.0, help="seconds for all")
    add("--out", type=Path, default=Path(os.environ.get("OUT", "."))/"gpu_serving.json")
    return parser.parse_args(argv)

def main(argv=None):
    asked = arguments(argv)
    asked.home = Path(tempfile.mkdtemp(prefix="gpu_serving"))
    stop = threading.Timer(asked.limit, end)
    stop.daemon = True
    stop.start()
    results = measured(asked)
    stop.cancel()
    print(json.dumps(results, indent=1, default=str))


if __name__ == "__main__":
    main()
