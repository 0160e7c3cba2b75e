"How long one task's whole evaluation takes: 10,000 predictions of 18 models, 1,000 resamples, every picture, page and cards; and one model's intervals beside scikit-learn"
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image
from safetensors.numpy import save_file
from sklearn import metrics as sk

from multimodal_fakes.core import write_json, write_jsonl
from multimodal_fakes.metrics import BOOTED, intervals, softmax
from multimodal_fakes.reports.report import report_all
from multimodal_fakes.reports.sections import page_all
from multimodal_fakes.trust.calibrate import calibrate_all

N, STRATEGIES, BOOT, LIMIT = 10_000, 13, 1000, 60.0     # predictions, fusion strategies, resamples, seconds that it may take
ARGUMENTS = ("made", "fake", ["made"], ["text", "vision"], [])

def predictions(rng, base, strength):
    "Two logits that know something of the label"
    z = rng.normal(size=(len(base), 2)) + strength * np.eye(2)[base.y]
    return base.assign(logit_real=z[:, 0], logit_fake=z[:, 1])

def make_project(home):
    "A task whose models were made up: every file that calibration and report read"
    rng, n = np.random.default_rng(0), N + 4000
    base = pd.DataFrame(dict(id=[f"made_unsplit_{i}" for i in range(n)], dataset="made", split=np.repeat(["train", "val", "test"], [2000, 2000, N]), y=rng.integers(0, 2, n), present=True))
    models = {f"Step_4/made/{m}/{name}": predictions(rng, base, s) for m in ("text", "vision") for name, s in (("baseline", 0.5), ("predictions", 1.0))} | {"Step_5/made/fusion/predictions": predictions(rng, base, 1.5)}
    tried = [predictions(rng, base, 1.3).assign(strategy=f"s{i}") for i in range(STRATEGIES - 1)] + [models["Step_5/made/fusion/predictions"].assign(strategy="concat")]
    for m in ("text", "vision"): (home/f"Step_4/made/{m}").mkdir(parents=True); save_file(dict(pooled=rng.normal(size=(n, 128)).astype("float32")), home/f"Step_4/made/{m}/features.safetensors")
    for name, frame in (models | {"Step_5/made/fusion/strategies": pd.concat(tried)}).items(): (home/name).parent.mkdir(parents=True, exist_ok=True); frame.to_parquet(home/f"{name}.parquet")
    gate = dict(metric="accuracy", against="text", gain=0.1, low=0.05, high=0.15, passed=True)
    write_json(home/"Step_5/made/fusion/fusion.json", dict(experts=["text", "vision"], chosen="concat", ships="concat", forced=False, best_expert="text", settings=dict(seed=0), strategies=dict(concat={}), gate=gate))
    pd.DataFrame(dict(modalities=["text", "vision"], n=N, accuracy=0.7)).to_csv(home/"Step_5/made/fusion/subsets.csv", index=False)
    write_json(home/"Step_3/splits.json", dict(zip(base.id, base.split)))
    make_posts(home, base, rng)
    make_papers(home, base)

def make_posts(home, base, rng):
    "A text and a picture for each, of five kinds"
    (home/"Datasets/made").mkdir(parents=True)
    for i in range(50): Image.fromarray(rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)).save(home/f"Datasets/made/{i}.jpg")
    kinds = np.where(base.y == 1, rng.choice(list("abcde"), len(base)), "")
    write_jsonl(home/"Step_2/data_manifest.jsonl", [dict(id=i, dataset="made", split="unsplit", text_raw=f"made-up post number {k}", image_path=f"made/{k % 50}.jpg", group=f"g{k}", labels_raw=dict(label=int(y), kind=kind), meta={}) for k, (i, y, kind) in enumerate(zip(base.id, base.y, kinds))])
    write_jsonl(home/"Step_2/ocr.jsonl", [])

def make_papers(home, base):
    "What the cards read"
    none = dict.fromkeys(["exact_images", "near_images", "exact_texts", "near_texts", "groups", "largest_group", "straddling_published_splits"], 0)
    write_json(home/"Step_1/inventory.json", dict(made=dict(title="Made up", licence="Apache-2.0", homepage="", obtain="made here", languages=dict(en=len(base)), modalities=dict(text=len(base)), problems={}, duplicates=none)))
    write_json(home/"Step_3/stats.json", dict(datasets=dict(made=dict(how="made by group", groups=len(base), repeated=0, dropped={}, splits=dict(test=dict(packed=N, unlabelled=0, labels=dict(fake=dict(real=N // 2, fake=N // 2))))))))
    for m, seen in dict(text=dict(max_tokens=96, long_text="head", vocab_size=3000), vision=dict(size=96)).items(): write_json(home/f"models/made/{m}_expert/expert.json", dict(encoder=f"small_{m}", preprocess=dict(name=f"small_{m}", source=None, licence="Apache-2.0") | seen, settings=dict(seed=0)))
    conf = dict(name="made", title="Made up", licence="Apache-2.0", obtain="made here", files=[dict(path="rows.csv")], kinds="kind", labels=dict(fake=dict(column="label", map={0: "real", 1: "fake"})))
    words = dict(title="Made up for a measurement", decides="Nothing; it is here to be measured.", classes=dict(real="so", fake="not so"), users="Whoever measures the evaluation.", use=["to measure"], never=["to judge"], limits=["made up"], ethics=["nobody"], data=dict(made="Made up."), unpleasant=False)
    for name, about in {"dataset": conf, "task": words}.items(): (home/"conf"/name).mkdir(parents=True); (home/"conf"/name/"made.yaml").write_text(yaml.safe_dump(about))

def peer_seconds(y, p, n):
    "Seconds of `n` resamples of the same five metrics, one after the other, by scikit-learn"
    rng, began = np.random.default_rng(0), time.perf_counter()
    for _ in range(n):
        i = rng.integers(0, len(y), len(y)); said = p[i].argmax(1)
        sk.accuracy_score(y[i], said), sk.f1_score(y[i], said, average="macro"), sk.precision_score(y[i], said), sk.recall_score(y[i], said), sk.roc_auc_score(y[i], p[i, 1])
    return time.perf_counter() - began

def entry(name, ours, peer, data):
    return dict(name=name, ours=round(ours, 2), peer=round(peer, 2), ratio=round(ours / peer, 3), unit="s", higher_is_better=False, command="python -m bench evaluation", machine=f"{platform.machine()}, {os.cpu_count()} cores", data=data)

def run() -> list:
    "One model's intervals against scikit-learn, and the whole of a task's evaluation against its limit"
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, N); p = softmax(rng.normal(size=(N, 2)) + np.eye(2)[y])
    began = time.perf_counter(); intervals(y, p, metrics=BOOTED, n_boot=BOOT); ours = time.perf_counter() - began
    few = 40
    found = [entry("intervals of five metrics", ours, peer_seconds(y, p, few) * BOOT / few, f"one model, {N:,} predictions, {BOOT} resamples; scikit-learn's time from {few} of them")]
    home = Path(tempfile.mkdtemp(prefix="evaluation"))
    try:
        make_project(home)
        began = time.perf_counter()
        calibrate_all(home, home, *ARGUMENTS, purposes=["best_f1", *(dict(name=m, target=t) for m, t in (("precision", 0.8), ("recall", 0.8), ("fpr", 0.2)))])
        page_all(home, home, *ARGUMENTS, report_all(home, home, *ARGUMENTS, n_boot=BOOT), 12)
        return [*found, entry("evaluation of a task, against its limit", time.perf_counter() - began, LIMIT, f"{N:,} predictions, {STRATEGIES + 5} models, five kinds, {BOOT} resamples: calibration, report, cards and page of {(home/'Step_5/made/report.html').stat().st_size:,} bytes")]
    finally: shutil.rmtree(home)
