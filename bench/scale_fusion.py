"""Fusion, calibration and report on many posts: CPU seconds and peak memory of each stage, and how both grow.

Posts, pictures, experts' scores and vectors are made from a seed in the layout that these stages read. Vectors have the
sizes of DistilBERT and EfficientNet-B0; tokens are those of two small encoders, and 512 pictures serve all posts."""
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from bench.scale import entry, exponent, measured
from multimodal_fakes.core import write_json, write_sums
from multimodal_fakes.data.manifest import write_manifest
from multimodal_fakes.record import expert_model, expert_step, text_field

SIZES = 25_000, 50_000, 100_000, 200_000     # posts; the last takes some gigabytes
MOST_GB, MOST_GB_OF_FAKEDDIT, MOST_EXPONENT = 6, 12, 1.05
FAKEDDIT = 682_661                    # its posts with a picture
DIMS = {"text": 768, "vision": 1280}
N_PICTURES = 512
PACKED = 4000                         # posts that lie in tars; others have pictures of these and texts of their own
EPOCHS = 1                            # of each network: what they take grows with it, and with the posts
COLOURS = "red blue green white yellow purple orange grey".split()
PLACES = "harbour bridge market tower garden station".split()
STRATEGIES = (
    "mean vote weighted selection logistic boosted concat gated interaction bilinear attention cross_modal conjunctive "
    "aligned").split()
STAGES = ("fusion", "calibrate", "report")
CONF = """name: made
title: made here
licence: Apache-2.0
obtain: made here
files: [{path: rows.csv}]
labels: {fake: {column: label, map: {0: real, 1: fake}}}
"""


def draw_pictures(folder, rng):
    "A disc or a box in some colour"
    folder.mkdir(parents=True)
    for i in range(N_PICTURES):
        picture = Image.new("RGB", (64, 64), tuple(rng.integers(20, 60, 3).tolist()))
        pen, (x, y) = ImageDraw.Draw(picture), rng.integers(4, 36, 2).tolist()
        paint = pen.ellipse if i % 2 else pen.rectangle
        paint((x, y, x + 22, y + 22), fill=COLOURS[i // 2 % len(COLOURS)])
        picture.save(folder/f"{i}.jpg", quality=85)


def make_posts(n, rng):
    "A fake one says another colour than its picture shows, or has a word of its own; one in twenty has no picture"
    pictures, fake, told = rng.integers(0, N_PICTURES, n), rng.random(n) < 0.5, rng.random(n) < 0.5
    split = np.repeat(rng.choice(["train", "val", "test"], n // 2, p=[0.8, 0.1, 0.1]), 2)
    posts = []
    for i, picture in enumerate(pictures.tolist()):
        shown = picture // 2 % len(COLOURS)
        said = (shown + 3) % len(COLOURS) if fake[i] and not told[i] else shown
        word = "secret" if fake[i] and told[i] else "quiet"
        text = f"a {COLOURS[said]} {('box', 'disc')[picture % 2]} at the {word} {PLACES[i % 6]}"
        posts.append(dict(
            dataset="made", split=split[i], text_raw=text, image_path=None if i % 20 == 7 else f"made/{picture}.jpg",
            labels_raw={"label": int(fake[i])},
            meta={"lang": "en", "width": 64, "height": 64, "sha256": f"{picture:064}"}))
    return posts


def numbered(post, i):
    "The same post under another number, which its text names"
    about = dict(id=f"made_{post['split']}_{i}", group=str(i // 2), text_raw=f"{post['text_raw']} number {i}")
    return post | about


def pack(home, n, rng):
    "Step_2 of n posts, and Step_3: the first are packed, the index says of all others where their like lies"
    from multimodal_fakes.data.shard import shard_all
    posts = make_posts(min(n, PACKED), rng)
    write_manifest(home/"Step_2", (numbered(post, i) for i, post in enumerate(posts)))
    shard_all(home, home)
    write_manifest(home/"Step_2", (numbered(posts[i % len(posts)], i) for i in range(n)))
    step, splits = home/"Step_3", {}
    for path in step.glob("shards/made/*/index.parquet"):
        index = pd.read_parquet(path)
        packed = {int(id.rsplit("_", 1)[1]): row for row, id in enumerate(index.id)}
        numbers = [i for i in range(n) if i % len(posts) in packed]
        index = index.iloc[[packed[i % len(posts)] for i in numbers]]
        index["id"] = [f"made_{path.parent.name}_{i}" for i in numbers]
        index["group"] = [str(i // 2) for i in numbers]
        index["text"] = [text_field(f"{posts[i % len(posts)]['text_raw']} number {i}") for i in numbers]
        index.to_parquet(path, index=False)
        splits |= dict.fromkeys(index.id, path.parent.name)
    write_json(step/"splits.json", splits)
    written = [path.relative_to(step).as_posix() for path in step.rglob("*.*") if path.name != "sums.json"]
    write_sums(step, "shard", written)


def make_expert(home, task, reader, y, name, rng):
    "Scores and vectors that tell half of the fake posts each, and a small encoder that was never trained"
    from multimodal_fakes.experts.encoder import load_encoder_conf, make_encoder
    from multimodal_fakes.experts.expert import Expert, prediction_table, save_expert, write_features, write_parquet
    from multimodal_fakes.settings import Recipe
    n, step = len(y), home/expert_step(task.name, name)
    present = reader.frame[{"text": "has_text", "vision": "has_image"}[name]].to_numpy(bool)
    shift = np.where(rng.random(n) < 0.5, 2.0 * y - 1, 0)[:, None]
    vectors = np.zeros((n, DIMS[name]), "float32")
    for start in range(0, n, 10_000):
        part = slice(start, start + 10_000)
        noise = rng.standard_normal((len(y[part]), DIMS[name]), dtype="float32")
        vectors[part] = noise + shift[part] * np.linspace(0.3, 0, DIMS[name], dtype="float32")
    vectors[~present] = 0
    logits = np.concatenate([-shift, shift], 1) + rng.normal(0, 0.7, (n, 2))
    step.mkdir(parents=True)
    write_parquet(prediction_table(reader.frame, y, present, logits, task), step/"predictions.parquet")
    write_features(step/"features.safetensors", vectors)
    write_sums(step, "expert", ["predictions.parquet", "features.safetensors"])
    conf = load_encoder_conf(f"small_{name}").model_copy(update={"size": 64} if name == "vision" else {})
    texts = reader.texts()[:5000] if name == "text" else None
    recipe = Recipe(
        encoder=conf.name, epochs=1, lr=1e-3, weight_decay=0.0, batch_size=16, loss="cross_entropy", seed=0,
        frozen_epochs=0, frozen_lr=1e-3, label_smoothing=0.0, n_workers=0, patience=1)
    save_expert(Expert(make_encoder(conf, texts), 2), home/expert_model(task.name, name), task, name, recipe,
                {"version": 1, "head": "trained"})


def make(home, n, seed=0):
    "A project of n posts as the stage expert leaves it"
    from multimodal_fakes.experts.expert import task_examples
    rng = np.random.default_rng(seed)
    (home/"conf/dataset").mkdir(parents=True)
    (home/"conf/dataset/made.yaml").write_text(CONF)
    draw_pictures(home/"Datasets/made", rng)
    pack(home, n, rng)
    task = task_of(home)
    reader, y = task_examples(home, task)
    for name in DIMS: make_expert(home, task, reader, y, name, rng)


def task_of(home):
    from multimodal_fakes.experts.expert import load_task
    return load_task(home, "made", "fake", ["made"], {name: name for name in DIMS}, [])


def stage(name, home):
    "One stage, as its notebook runs it"
    task = task_of(home)
    about = task.name, task.field, task.datasets, task.experts, task.tests
    if name == "fusion":
        from multimodal_fakes.fuse.fusion import fuse
        fuse(home, home, task, strategies=STRATEGIES, epochs=EPOCHS, aux_weight=0.1)
    if name == "calibrate":
        from multimodal_fakes.trust.calibrate import calibrate_all, draw_decisions, draw_map, draw_reliability
        calibrate_all(home, home, *about)
        draw_reliability(home/"Step_5/made/calibrate", task.datasets)
        draw_map(home/"Step_5/made/calibrate", task.datasets)
        draw_decisions(home/"Step_5/made", task.datasets)
    if name == "report":
        from multimodal_fakes.reports.report import report_all
        report_all(home, home, *about)


def run():
    "Each stage in a process of its own, at each size"
    figures = {name: [] for name in STAGES}
    for n in SIZES:
        with tempfile.TemporaryDirectory() as d:
            make(Path(d), n)
            for name in STAGES:
                figures[name].append(measured([sys.executable, "-m", "bench.scale_fusion", name, d]))
    for name, costs in figures.items():
        peaks, seconds = ([cost[what] for cost in costs] for what in ("peak_gb", "cpu_s"))
        for n, peak, cpu in zip(SIZES, peaks, seconds):
            yield entry(f"{name}, {n:,} posts, peak", peak, "GB", limit=MOST_GB)
            yield entry(f"{name}, {n:,} posts", cpu, "CPU s")
        slope, start = np.polyfit(SIZES, peaks, 1)
        more = start + slope * FAKEDDIT
        yield entry(f"{name}, {FAKEDDIT:,} posts by the line, peak", more, "GB", MOST_GB_OF_FAKEDDIT)
        yield entry(f"{name}, growth of CPU seconds", exponent(SIZES, seconds), "exponent", MOST_EXPONENT)


if __name__ == "__main__":
    stage(sys.argv[1], Path(sys.argv[2]))
