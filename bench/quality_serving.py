"""What an ensemble costs where it is served: linear and MiniLM together on texts, beside MiniLM alone, through ONNX"""
import statistics
import time
from functools import partial

from bench.quality_line import TASK, pack, task_of, train_one
from bench.quality_sets import HOME, read_split
from multimodal_fakes.core import read_yaml, root
from multimodal_fakes.detect.export import export_all
from multimodal_fakes.detect.predict import Detector
from multimodal_fakes.fuse.fusion import fuse
from multimodal_fakes.trust.calibrate import calibrate_all

SET, SEED = "clickbait", 0
ROUNDS = 15
N = 64                      # headlines of a round, one after the other
DATA = f"{N} clickbait headlines one after the other, {ROUNDS} rounds in turns, medians, one thread"
EXPERTS = {                 # key → entry of `experts`
    "task_text_minilm": dict(encoder="minilm", head="linear", modality="text"),
    "task_text_linear": dict(encoder="tfidf", modality="text"),
}
SHIPS = dict(minilm="text_minilm", both="weighted")     # strategy that is forced
WEIGHTS = dict(text_minilm=0.5, text_linear=0.5)        # so that both are asked


def detector(ships) -> Detector:
    "One detector of the same two experts, exported and loaded through ONNX"
    folder = HOME/"serving"
    pack(SET, SEED, folder)
    task = task_of(SET, folder, EXPERTS)
    params = read_yaml(root()/"params.yaml")
    for key, entry in EXPERTS.items():
        train_one(folder, task, key, entry, params)
    fuse(folder, folder, task, SHIPS[ships], ["weighted"], weights=WEIGHTS)
    calibrate_all(folder, folder, TASK, task.field, task.datasets, task.experts, task.tests)
    export_all(folder, folder, TASK, task.datasets, precisions=["float32"], n_posts=100)
    return Detector.load(folder/f"models/{TASK}", runtime="onnx", threads=1)


def seconds(judge, texts):
    "Of a post, median over some texts, one after the other"
    times = []
    for text in texts:
        began = time.perf_counter()
        judge(text=text)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def latency() -> tuple: # seconds of a post: both, MiniLM alone; median ratio of the rounds
    "Both detectors in turns, in one process"
    posts, _ = read_split(SET, SEED)
    texts = posts.text[posts.split == "test"].to_list()[:N]
    judges = {name: partial(detector(name).predict) for name in SHIPS}
    for judge in judges.values():
        seconds(judge, texts)                   # warm
    rounds = [{name: seconds(judge, texts) for name, judge in judges.items()} for _ in range(ROUNDS)]
    ratio = statistics.median(r["both"] / r["minilm"] for r in rounds)
    both, alone = (statistics.median(r[name] for r in rounds) for name in ("both", "minilm"))
    return both, alone, ratio
