"""How long the whole evaluation of one task takes, and one model's intervals beside scikit-learn.

10,000 predictions of 18 models, 1,000 resamples, every picture, page and card."""
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

from multimodal_fakes.core import write_json, write_sums
from multimodal_fakes.data.manifest import write_manifest
from multimodal_fakes.metrics import BOOTED, intervals, softmax
from multimodal_fakes.record import expert_model, expert_step
from multimodal_fakes.reports.report import report_all
from multimodal_fakes.reports.sections import page_all
from multimodal_fakes.trust.calibrate import calibrate_all

N = 10_000            # predictions
STRATEGIES = 13       # fusion strategies
BOOT = 1000           # resamples
PEER_BOOT = 40        # resamples that scikit-learn is timed with
LIMIT = 60.0          # seconds that the evaluation may take
PICTURES = 50         # drawn; the posts share them
EXPERTS = {"text": "text", "text_linear": "text", "vision": "vision", "vision_linear": "vision"}
ARGUMENTS = ("made", "fake", ["made"], EXPERTS, [])

def predictions(rng, base, strength):
    "Two logits that know something of the label"
    z = rng.normal(size=(len(base), 2)) + strength * np.eye(2)[base.y]
    return base.assign(logit_real=z[:, 0], logit_fake=z[:, 1])

def make_models(rng, base):
    "Predictions of the experts, the fusion and its strategies, by the path of their table"
    tables = {}
    for name in EXPERTS:
        tables[expert_step("made", name)/"predictions"] = predictions(rng, base, 0.5 if "linear" in name else 1.0)
    fused = predictions(rng, base, 1.5)
    tables["Step_5/made/fusion/predictions"] = fused
    tried = [predictions(rng, base, 1.3).assign(strategy=f"s{i}") for i in range(STRATEGIES - 1)]
    tables["Step_5/made/fusion/strategies"] = pd.concat([*tried, fused.assign(strategy="concat")])
    return tables

def make_fusion(home):
    "What the stage of fusion writes beside its predictions"
    ships = dict(chosen="concat", ships="concat", forced=False)
    losses = dict(loss=0.2, loss_se=0.01, even_loss=0.2, nll=0.5, behind=0.0, behind_se=0.01, within=True, guard="")
    scores = losses | dict(cost=1, experts=1, n=2000, accuracy=0.7, macro_f1=0.7, auroc=0.7)
    table = [dict(candidate=name, **scores) for name in (*EXPERTS, "concat")]
    proof = dict(why=["It was made up."], against="text", gain=0.1, low=0.05, high=0.15, proved=True)
    fusion = dict(experts=EXPERTS, **ships, settings=dict(seed=0), weights={}, untaught={}, left_out={})
    write_json(home/"Step_5/made/fusion/fusion.json", fusion | dict(choice=ships | proof | dict(table=table)))
    subsets = pd.DataFrame(dict(modalities=["text", "vision"], n=N, accuracy=0.7))
    subsets.to_csv(home/"Step_5/made/fusion/subsets.csv", index=False)

def make_project(home):
    "A task whose models were made up: every file that calibration and report read"
    rng = np.random.default_rng(0)
    n = N + 4000
    base = pd.DataFrame(dict(
        id=[f"made_unsplit_{i}" for i in range(n)],
        dataset="made",
        split=np.repeat(["train", "val", "test"], [2000, 2000, N]),
        y=rng.integers(0, 2, n),
        present=True,
    ))
    tables = make_models(rng, base)
    for name in EXPERTS:
        folder = home/expert_step("made", name)
        folder.mkdir(parents=True)
        pooled = rng.normal(size=(n, 128)).astype("float32")
        save_file(dict(pooled=pooled), folder/"features.safetensors")
    for name, table in tables.items():
        (home/name).parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(home/f"{name}.parquet")
    make_fusion(home)
    for name in EXPERTS: write_sums(home/expert_step("made", name), "expert")
    write_sums(home/"Step_5/made/fusion", "fusion")
    for name, modality in EXPERTS.items():
        head = "linear" if "linear" in name else "trained"
        about = dict(name=name, modality=modality, head=head, encoder="made", settings={}, versions={})
        about["preprocess"] = dict(name="made", licence="made here", source=None, weights=None)
        write_json(home/expert_model("made", name)/"expert.json", about)
        write_sums(home/expert_model("made", name), "made")
    write_json(home/"models/made/mm_fusion/fusion.json", dict(strategy="concat", experts=EXPERTS))
    write_sums(home/"models/made/mm_fusion", "made")
    write_json(home/"Step_3/splits.json", dict(zip(base.id, base.split)))
    make_posts(home, base, rng)
    make_papers(home, base)
    make_conf(home)

def make_post(k, id, y, kind):
    "A row of the manifest"
    return dict(
        id=id,
        dataset="made",
        split="unsplit",
        text_raw=f"made-up post number {k}",
        image_path=f"made/{k % PICTURES}.jpg",
        group=f"g{k}",
        labels_raw=dict(label=int(y), kind=kind),
        meta={},
    )

def make_posts(home, base, rng):
    "A text and a picture for each, of five kinds"
    folder = home/"Datasets/made"
    folder.mkdir(parents=True)
    for i in range(PICTURES):
        pixels = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder/f"{i}.jpg")
    kinds = np.where(base.y == 1, rng.choice(list("abcde"), len(base)), "")
    posts = [make_post(k, *row) for k, row in enumerate(zip(base.id, base.y, kinds))]
    write_manifest(home/"Step_2", posts)

NO_DUPLICATES = dict(
    exact_images=0,
    near_images=0,
    exact_texts=0,
    near_texts=0,
    groups=0,
    largest_group=0,
    straddling_published_splits=0,
)

def make_papers(home, base):
    "What the cards read"
    inventory = dict(
        title="Made up",
        licence="Apache-2.0",
        homepage="",
        obtain="made here",
        languages=dict(en=len(base)),
        modalities=dict(text=len(base)),
        problems={},
        duplicates=NO_DUPLICATES,
    )
    write_json(home/"Step_1/inventory.json", dict(made=inventory))
    labels = dict(fake=dict(real=N // 2, fake=N // 2))
    splits = dict(test=dict(packed=N, unlabelled=0, labels=labels))
    stats = dict(how="made by group", groups=len(base), repeated=0, dropped={}, splits=splits)
    write_json(home/"Step_3/stats.json", dict(datasets=dict(made=stats)))
    inputs = dict(text=dict(max_tokens=96, long_text="head", vocab_size=3000), vision=dict(size=96))
    for modality, options in inputs.items():
        encoder = f"small_{modality}"
        preprocess = dict(name=encoder, source=None, licence="Apache-2.0") | options
        expert = dict(encoder=encoder, preprocess=preprocess, settings=dict(seed=0))
        write_json(home/f"models/made/{modality}_expert/expert.json", expert)

DATASET = dict(
    name="made",
    title="Made up",
    licence="Apache-2.0",
    obtain="made here",
    files=[dict(path="rows.csv")],
    kinds="kind",
    labels=dict(fake=dict(column="label", map={0: "real", 1: "fake"})),
)
TASK = dict(
    title="Made up for a measurement",
    decides="Nothing; it is here to be measured.",
    classes=dict(real="so", fake="not so"),
    users="Whoever measures the evaluation.",
    use=["to measure"],
    never=["to judge"],
    limits=["made up"],
    ethics=["nobody"],
    data=dict(made="Made up."),
    unpleasant=False,
)

def make_conf(home):
    "Settings of the dataset and of the task"
    for kind, conf in {"dataset": DATASET, "task": TASK}.items():
        folder = home/"conf"/kind
        folder.mkdir(parents=True)
        (folder/"made.yaml").write_text(yaml.safe_dump(conf))

def peer_seconds(y, p, n):
    "Seconds of `n` resamples of the same five metrics, one after the other, by scikit-learn"
    rng = np.random.default_rng(0)
    began = time.perf_counter()
    for _ in range(n):
        i = rng.integers(0, len(y), len(y))
        predicted = p[i].argmax(1)
        sk.accuracy_score(y[i], predicted)
        sk.f1_score(y[i], predicted, average="macro")
        sk.precision_score(y[i], predicted)
        sk.recall_score(y[i], predicted)
        sk.roc_auc_score(y[i], p[i, 1])
    return time.perf_counter() - began

def entry(name, ours, peer, data):
    "One figure as results.json keeps it"
    return dict(
        name=name,
        ours=round(ours, 2),
        peer=round(peer, 2),
        ratio=round(ours / peer, 3),
        unit="s",
        higher_is_better=False,
        command="python -m bench evaluation",
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        data=data,
    )

def interval_seconds():
    "Seconds of one model's intervals: ours, and scikit-learn's, which are scaled up from a few resamples"
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, N)
    p = softmax(rng.normal(size=(N, 2)) + np.eye(2)[y])
    began = time.perf_counter()
    intervals(y, p, metrics=BOOTED, n_boot=BOOT)
    ours = time.perf_counter() - began
    return ours, peer_seconds(y, p, PEER_BOOT) * BOOT / PEER_BOOT

def evaluation_seconds(home):
    "Seconds of calibration, report, cards and page, and the bytes of the page"
    make_project(home)
    began = time.perf_counter()
    calibrate_all(home, home, *ARGUMENTS, purposes=[
        "best_f1",
        *(dict(name=m, target=t) for m, t in (("precision", 0.8), ("recall", 0.8), ("fpr", 0.2))),
    ])
    page_all(home, home, *ARGUMENTS, report_all(home, home, *ARGUMENTS, n_boot=BOOT), 12)
    seconds = time.perf_counter() - began
    return seconds, (home/"Step_5/made/report.html").stat().st_size

def run() -> list:
    "One model's intervals against scikit-learn, and the whole of a task's evaluation against its limit"
    about = f"one model, {N:,} predictions, {BOOT} resamples; scikit-learn's time from {PEER_BOOT} of them"
    figures = [entry("intervals of five metrics", *interval_seconds(), about)]
    home = Path(tempfile.mkdtemp(prefix="evaluation"))
    try:
        seconds, n_bytes = evaluation_seconds(home)
    finally:
        shutil.rmtree(home)
    about = (f"{N:,} predictions, {STRATEGIES + 5} models, five kinds, {BOOT} resamples: "
             f"calibration, report, cards and page of {n_bytes:,} bytes")
    return [*figures, entry("evaluation of a task, against its limit", seconds, LIMIT, about)]
