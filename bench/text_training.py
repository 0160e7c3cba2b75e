"""How fast a text expert is trained.

Beside a loop padded to 128 tokens, a loop padded to the longest text of each batch, and AutoGluon MultiModal."""
import gzip
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from multimodal_fakes.core import FakesError, root, seed_everything
from multimodal_fakes.experts.encoder import freeze_below, has_bf16, load_encoder_conf, make_encoder, resolve_source
from multimodal_fakes.experts.expert import Expert, run_over
from multimodal_fakes.experts.items import Items
from multimodal_fakes.experts.train import fit
from multimodal_fakes.record import text_field
from multimodal_fakes.settings import Recipe

DATASETS = Path(os.environ.get("DATASETS", root().parent/"shared/Datasets"))
AUTOGLUON = "autogluon.multimodal==1.6.3"
BATCH, WARM_UP = 32, 3      # texts of a batch of the plain loop; its batches before the clock starts


def headlines():
    "Texts, labels (1 is clickbait), and the rows to test on: one in ten by chance"
    folder = DATASETS/"clickbait"
    if not folder.is_dir():
        raise FakesError(f"No folder {folder}: name the folder that holds the dataset `clickbait` with DATASETS=….")
    texts, y = [], []
    for label, name in ((0, "non_clickbait_data.gz"), (1, "clickbait_data.gz")):
        with gzip.open(folder/name, "rt", encoding="utf-8") as f:
            lines = [line.strip() for line in f if line.strip()]
        texts += lines
        y += [label] * len(lines)
    order = np.random.default_rng(0).permutation(len(texts))
    test = np.zeros(len(texts), bool)
    test[order[:len(texts) // 10]] = True
    return np.array(texts, dtype=object), np.array(y), test


RECIPE = dict(
    encoder="minilm",
    frozen_epochs=0,
    frozen_lr=1e-3,
    weight_decay=0.01,
    batch_size=32,
    patience=3,
    loss="cross_entropy",
    label_smoothing=0.0,
    n_workers=0,
    seed=0,
)


def ours(texts, y, test, **changes):
    "Seconds of the whole training, tokenisation and validation on one in twenty included, and accuracy"
    seed_everything(0)
    train = np.flatnonzero(~test)
    val = np.random.default_rng(1).choice(train, len(train) // 20, replace=False)
    recipe = Recipe(**RECIPE | changes)
    reader = SimpleNamespace(texts=lambda: [text_field(t, lang="en") for t in texts])
    model = Expert(make_encoder(load_encoder_conf(recipe.encoder)), 2, layer_decay=recipe.layer_decay)
    encoder = model.encoder
    freeze_below(encoder, recipe.top_layers)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as d:
        items = Items(encoder, reader, train, y[train], recipe, 2)
        val_items = Items(encoder, reader, val, y[val])
        fit(model, items, val_items, f"{d}/run", recipe.epochs, recipe.lr, recipe.batch_size, recipe.patience,
            recipe.weight_decay, recipe.seed, bf16=has_bf16(), schedule=recipe.schedule, ema=recipe.ema)
    seconds = time.perf_counter() - began
    logits = run_over(model, Items(encoder, reader, np.flatnonzero(test)))[1]
    return {
        "seconds": seconds,
        "rate": recipe.epochs * (len(train) - len(val)) / seconds,
        "accuracy": float((logits.argmax(1) == y[test]).mean()),
    }


def plain_loop(texts, y, test, batches, padding):
    """Samples a second of the loop that most scripts have.

    AdamW, float32, one batch after the other; three batches to warm up."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    folder = resolve_source(load_encoder_conf("minilm").source)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2).train()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
    order = np.random.default_rng(0).permutation(np.flatnonzero(~test))
    rows = order[:BATCH * (batches + WARM_UP)].reshape(-1, BATCH)
    for k, at in enumerate(rows):
        if k == WARM_UP:
            began = time.perf_counter()
        batch = tokenizer(list(texts[at]), padding=padding, truncation=True, max_length=128, return_tensors="pt")
        labels = torch.from_numpy(y[at])
        model(**batch, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return BATCH * batches / (time.perf_counter() - began)


PEER = """
import json, sys, time, pandas as pd
from autogluon.multimodal import MultiModalPredictor
train, test = pd.read_parquet(sys.argv[1]), pd.read_parquet(sys.argv[2])
options = {
    "model.names": ["hf_text"],
    "model.hf_text.checkpoint_name": sys.argv[4],
    "optim.max_epochs": 1,
    "optim.lr": 1e-4,
    "env.per_gpu_batch_size": 32,
    "env.batch_size": 32,
    "env.precision": "32",
    "env.num_gpus": 0,
}
began = time.perf_counter()
predictor = MultiModalPredictor(label="y", path=sys.argv[3], verbosity=1, problem_type="binary")
predictor = predictor.fit(train, seed=0, hyperparameters=options)
seconds = time.perf_counter() - began
right = predictor.predict(test).to_numpy() == test.y.to_numpy()
print("RESULT", json.dumps({"seconds": seconds, "accuracy": float(right.mean())}))
"""


def autogluon_python():
    "Python of an environment of its own with AutoGluon; none where that cannot be installed"
    env = root()/".cache/bench/autogluon"
    python = env/"bin/python"
    if python.exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", str(env)], check=True)
    install = ["uv", "pip", "install", "--quiet", "--python", str(python), AUTOGLUON]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode == 0:
        return python
    shutil.rmtree(env)
    print(f"AutoGluon cannot be installed here: {done.stderr[-500:]}")
    return None


def autogluon(texts, y, test):
    "Seconds and accuracy of AutoGluon's fit on the same rows; none where it cannot be had"
    python = autogluon_python()
    if python is None:
        return None
    with tempfile.TemporaryDirectory() as d:
        for name, rows in (("train", ~test), ("test", test)):
            table = pd.DataFrame({"text": texts[rows].astype(str), "y": y[rows]})
            table.to_parquet(f"{d}/{name}.parquet")
        Path(f"{d}/peer.py").write_text(PEER)
        source = resolve_source(load_encoder_conf("minilm").source)
        command = [str(python), f"{d}/peer.py", f"{d}/train.parquet", f"{d}/test.parquet", f"{d}/model", source]
        done = subprocess.run(command, capture_output=True, text=True, cwd=d)
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not results:
        print(f"AutoGluon stopped: {done.stderr[-1500:]}")
        return None
    return json.loads(results[0].removeprefix("RESULT "))


def entry(name, ours, peer, unit, higher, data):
    "One figure as results.json keeps it"
    return dict(
        name=name,
        ours=round(ours, 4),
        peer=round(peer, 4),
        ratio=round(ours / peer, 3),
        unit=unit,
        higher_is_better=higher,
        command="python -m bench text_training",
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        data=data,
    )


def against_loops(texts, y, test, rows):
    "Speed beside both plain loops, with their batches of 32 and all layers trained"
    loops = {"128 tokens": (30, "max_length"), "the longest of the batch": (150, "longest")}
    rates = {}
    for name, (n_batches, padding) in loops.items():      # before ours: `fit` tunes the whole process
        rates[name] = plain_loop(texts, y, test, n_batches, padding)
    same = ours(texts, y, test, epochs=1, lr=1e-4)
    print(same)
    entries = []
    for name, rate in rates.items():
        title = f"text training against a loop padded to {name}"
        entries.append(entry(title, same["rate"], rate, "samples/s", True, f"{rows}, batch 32"))
    return entries


def against_autogluon(texts, y, test, rows):
    "Speed and accuracy of the recipe that is made for speed; nothing where AutoGluon cannot be had"
    peer = autogluon(texts, y, test)
    if not peer:
        return []
    fast = ours(texts, y, test, epochs=1, lr=2e-4, batch_size=64, top_layers=4)
    data = f"{rows}; ours with batch 64 and the top four layers, AutoGluon with batch 32 and all of them"
    speed = "text training against AutoGluon MultiModal, whole fit"
    accuracy = "text accuracy after one epoch against AutoGluon MultiModal"
    return [
        entry(speed, fast["seconds"], peer["seconds"], "s", False, data),
        entry(accuracy, fast["accuracy"], peer["accuracy"], "accuracy", True, data),
    ]


def run() -> list:
    "Speed and accuracy of one epoch: as the loops have it, then with the recipe that is made for speed"
    texts, y, test = headlines()
    rows = (f"clickbait, {(~test).sum():,} headlines to train on, {test.sum():,} to test, by chance, seed 0, "
            "all-MiniLM-L6-v2, one epoch")
    return against_loops(texts, y, test, rows) + against_autogluon(texts, y, test, rows)
