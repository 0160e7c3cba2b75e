"""`python -m bench gpu [fit nvjpeg compile video]`, `make bench-gpu`: training on a GPU, with its data and without.

EfficientNet-B0 and DistilBERT end to end from shards, beside a plain loop over one batch that lies on the card; and the
video recipe, beside the way of before where its code is given. Weights are drawn by chance: speed does not depend on
them, and no hub is needed."""
import io
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from bench.reader import draw_picture, make_shards
from bench.serve_posts import with_comment
from multimodal_fakes.core import FakesError, describe_device, nearest, pick_device, seed_everything
from multimodal_fakes.data.extract import from_strip, to_strip
from multimodal_fakes.data.reader import ShardReader
from multimodal_fakes.experts.confs import EncoderConf, VideoConf
from multimodal_fakes.experts.encoder import make_encoder, pick_precision
from multimodal_fakes.experts.expert import Expert, make_head
from multimodal_fakes.experts.items import Items
from multimodal_fakes.experts.train import Classifier, fit
from multimodal_fakes.settings import Recipe

ON_GPU = pick_device() == "cuda"
GPU = dict(n=20_000, n_val=2_000, batch_size=256, size=224, layers=6)
CPU = dict(n=64, n_val=16, batch_size=16, size=64, layers=1)      # the same path, for any machine
AT = GPU if ON_GPU else CPU
EPOCHS = 2
SIDE = 500           # pixels of the longer side of a picture
DRAWN = 256          # pictures that differ; the others are their files with another comment
TOKENS = 128         # of a text of 100 words, about
WORDS = "a red blue old car boat man tree near in the park street says found again never".split()
ASKED = 2_500        # samples a second, of a whole fit


class Both(Dataset):
    "Text and picture of the same examples; it keeps when each batch came"
    def __init__(self, text, vision, y):
        self.parts = {"text": text, "vision": vision}
        self.y = y
        self.came = []

    def __len__(self):
        return len(self.y)

    @property
    def decoded(self):
        return sum(part.decoded for part in self.parts.values())

    def __getitem__(self, draw):
        row = draw[1] if isinstance(draw, tuple) else draw
        item = {m: part[draw] for m, part in self.parts.items()}
        return item | {"labels": int(self.y[row])}

    def collate(self, items):
        batch = {}
        for m, part in self.parts.items():
            inputs = part.collate([item[m] for item in items])
            if m == "text":      # at one length, as the parts of a batch come from several workers
                inputs = {k: self._long(t) for k, t in inputs.items() if t.ndim == 2}
            batch |= {f"{m}_{name}": value for name, value in inputs.items()}
        return batch | {"labels": torch.tensor([item["labels"] for item in items])}

    def _long(self, tokens):
        return nn.functional.pad(tokens, (0, TOKENS - tokens.shape[1]))

    def finish(self, batch):
        "Pictures decoded and changed on the device"
        self.came.append((time.perf_counter(), "vision_epoch" in batch))
        pictures = {k.removeprefix("vision_"): v for k, v in batch.items() if k.startswith("vision_")}
        made = self.parts["vision"].finish(pictures | {"labels": batch["labels"]})
        made.pop("rows", None)
        rest = {k: v for k, v in batch.items() if not k.startswith("vision_")}
        return rest | {f"vision_{k}": v for k, v in made.items() if k != "labels"}


class Same(Both):
    "One example again and again, prepared once: what training costs without its data"
    def __getitem__(self, draw):
        if not hasattr(self, "one"):
            self.one = super().__getitem__((0, 0))
        return self.one


def make_side(dim):
    "Layers over one encoder, 512 numbers wide"
    return nn.Sequential(
        nn.Dropout(0.3),
        nn.Linear(dim, 512),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(512, 512),
        nn.ReLU(),
    )


class Fakeddit(Classifier):
    "The published recipe: 1280 → 512 → 512 and 768 → 512 → 512, then 1024 → 256 → 128 → classes"
    def __init__(self, text, vision):
        super().__init__(2)
        self.text = text
        self.vision = vision
        self.sides = nn.ModuleDict({"text": make_side(text.dim), "vision": make_side(vision.dim)})
        self.head = make_head(1024, 2, [256, 128], 0.4)

    def side(self, m, batch):
        "Output of one side, (n, 512)"
        inputs = {k.removeprefix(f"{m}_"): v for k, v in batch.items() if k.startswith(f"{m}_")}
        pooled = getattr(self, m).encode(inputs).pooled
        return self.sides[m](pooled)

    def logits(self, **batch):
        sides = [self.side(m, batch) for m in ("text", "vision")]
        return self.head(torch.cat(sides, 1))


def encoders(texts):
    "Both backbones at their published width, freshly initialised"
    arch = dict(model_type="distilbert", n_layers=AT["layers"])
    text = EncoderConf(name="distilbert", modality="text", pooling="cls", arch=arch)
    vision = EncoderConf(
        name="efficientnet_b0",
        modality="vision",
        source="efficientnet_b0",
        pretrained=False,
        size=AT["size"],
        rotation=15,
        jitter=0.2,
    )
    return make_encoder(text, texts), make_encoder(vision)


def draw_files(folder, n):
    "JPEG files of 500 pixels, no two the same"
    rng = np.random.default_rng(0)
    drawn = [_jpeg(draw_picture(rng), rng) for _ in range(min(n, DRAWN))]
    folder.mkdir(parents=True)
    paths = [folder/f"{i:05d}.jpg" for i in range(n)]
    for i, path in enumerate(paths):
        path.write_bytes(with_comment(drawn[i % DRAWN], i))
    return paths


def _jpeg(picture, rng):
    file = io.BytesIO()
    picture.resize((SIDE, int(rng.integers(333, SIDE + 1)))).save(file, "JPEG", quality=88)
    return file.getvalue()


def make_reader(folder, n):
    "Drawn pictures with texts of 100 words, about 128 tokens"
    words = np.random.default_rng(0).choice(WORDS, (n, 100))
    step = make_shards(folder, draw_files(folder/"Datasets/drawn", n))
    reader = ShardReader(step, "drawn", "train")
    reader.texts = lambda: [" ".join(w) for w in words[:len(reader)]]
    return reader


def make_recipe(**more):
    "All layers trained"
    about = dict(encoder="", frozen_epochs=0, epochs=EPOCHS, frozen_lr=1e-4, lr=5e-5, weight_decay=0.01,
                 batch_size=AT["batch_size"], patience=EPOCHS, loss="cross_entropy", label_smoothing=0.0,
                 n_workers="auto", seed=0)
    return Recipe(**about | more)


class Run:
    "One training with validation: its seconds, and when its batches came"
    def __init__(self, kind, reader, folder, recipe):
        seed_everything(0)
        text, vision = encoders(reader.texts())
        make = partial(self._data, kind, reader, text, vision)
        self.train = make(np.arange(AT["n"]), recipe)
        val = make(np.arange(AT["n"], AT["n"] + AT["n_val"]))
        self.began = time.perf_counter()
        fit(Fakeddit(text, vision), self.train, val, folder/"run", EPOCHS, recipe.lr, recipe.batch_size, EPOCHS,
            precision=pick_precision(), n_workers=recipe.n_workers, compile=recipe.compile)
        self.seconds = time.perf_counter() - self.began

    def _data(self, kind, reader, text, vision, rows, recipe=None):
        "Items of both modalities; with a recipe as training sees them"
        text_items = Items(text, reader, rows, recipe=recipe)
        vision_items = Items(vision, reader, rows, recipe=recipe)
        return kind(text_items, vision_items, reader.targets("fake")[rows])

    @property
    def epochs(self):
        "Of each epoch: seconds until its first batch came, and samples a second from there to its last"
        told, steps, before = [], [], self.began
        for moment, is_step in [*self.train.came, (None, False)]:
            if is_step:
                steps.append(moment)
                continue
            if steps:
                rate = (len(steps) - 1) * AT["batch_size"] / max(steps[-1] - steps[0], 1e-9)
                told.append((steps[0] - before, rate))
            steps, before = [], moment
        return told


def plain_rate(reader, steps=30):
    "Samples a second of a loop over one batch that lies on the device"
    seed_everything(0)
    text, vision = encoders(reader.texts())
    device, rows = pick_device(), np.arange(AT["batch_size"])
    items = Both(Items(text, reader, rows), Items(vision, reader, rows), reader.targets("fake")[rows])
    batch = items.collate([items[i] for i in rows])
    batch = {k: v.to(device) for k, v in batch.items()}
    model = Fakeddit(text, vision).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), 5e-5)
    for step in range(-5, steps):
        if step == 0:
            _wait()
            began = time.perf_counter()
        with torch.autocast(device, torch.bfloat16):
            loss = model(**batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    _wait()
    return steps * AT["batch_size"] / (time.perf_counter() - began)


def _wait():
    if ON_GPU:
        torch.cuda.synchronize()


def entry(name, ours, peer, unit, what="peer: what is asked for"):
    "A figure as results.json keeps it"
    data = (f"{GPU['n']:,} drawn JPEG of {SIDE} px, {GPU['n_val']:,} to validate, 224 px, 128 tokens, "
            f"batch {GPU['batch_size']}, {EPOCHS} epochs, bf16; {what}")
    return dict(name=name, ours=round(ours, 2), peer=peer, ratio=round(ours / peer, 2) if peer else None, unit=unit,
                higher_is_better=unit not in ("s", "%"), command="python -m bench gpu", data=data,
                machine=f"{platform.machine()}, {os.cpu_count()} cores, {describe_device()}")


def trained(name, reader, folder, **more):
    "A whole fit, told and as entries"
    run = Run(Both, reader, folder, make_recipe(**more))
    whole = EPOCHS * AT["n"] / run.seconds
    peak = torch.cuda.max_memory_allocated() / 1e9 if ON_GPU else 0
    print(f"{name}: whole fit {whole:,.0f} samples/s, {run.seconds:.1f} s, {peak:.1f} GB at the peak")
    for first, rate in run.epochs:
        print(f"  an epoch: its first batch after {first:.2f} s, then {rate:,.0f} samples/s")
    first, rate = max(first for first, _ in run.epochs), max(rate for _, rate in run.epochs)
    return [entry(f"end to end, {name}, whole fit", whole, ASKED, "samples/s"),
            entry(f"end to end, {name}, while batches come", rate, ASKED, "samples/s"),
            entry(f"end to end, {name}, first batch of an epoch", first, 2.0, "s")]


def waiting(reader, folder, made):
    "The share of a fit that waits for data: what one example again and again does not take"
    alone = EPOCHS * AT["n"] / Run(Same, reader, folder, make_recipe()).seconds
    share = max(0.0, 1 - made[0]["ours"] / alone)
    print(f"one example again and again: {alone:,.0f} samples/s, so {share:.0%} of the time waits for data")
    return entry("end to end, share of the time that waits for data", 100 * share, 10.0, "%")


# ---- video
CLIPS = dict(n=800, batch_size=32) if ON_GPU else dict(n=8, batch_size=4)
FRAMES = 16


class Strips:
    "Film strips as the shards hold them, 16 frames of 256 pixels"
    def __init__(self):
        rng = np.random.default_rng(0)
        self.strips = [to_strip(self._frames(rng)) for _ in range(32)]

    def _frames(self, rng):
        return np.stack([np.asarray(draw_picture(rng).resize((256, 256))) for _ in range(FRAMES)])

    def sample(self, modality, i):
        return from_strip(self.strips[i % len(self.strips)]), np.arange(FRAMES) / 5


def train_clips(n_workers):
    "Clips a second of the recipe of 16 frames"
    seed_everything(0)
    conf = VideoConf(name="efficientnet_b0_video", modality="video", source="efficientnet_b0", pretrained=False,
                     size=AT["size"], n_frames=FRAMES, temporal="transformer", flip=True, rotation=15, jitter=0.2)
    encoder, n = make_encoder(conf), CLIPS["n"]
    recipe, reader, y = make_recipe(n_workers=n_workers), Strips(), np.arange(n) % 2
    train = Items(encoder, reader, np.arange(n), y, recipe, 2)
    few = np.arange(-(-n // 10))
    val = Items(encoder, reader, few, y[few])
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        fit(Expert(encoder, 2), train, val, Path(folder)/"run", 1, 5e-5, CLIPS["batch_size"], 1,
            precision=pick_precision(), n_workers=recipe.n_workers)
        return n / (time.perf_counter() - began)


def clips():
    "Ours, and that of version 0.10.0, whose default was no worker, in the folder that BEFORE names, with this file"
    ours = train_clips("auto")
    print(f"video: {ours:,.1f} clips/s")
    before = os.environ.get("BEFORE")
    if not before:
        return [entry("video recipe of 16 frames, whole fit", ours, None, "clips/s", "no peer")]
    ask = "from bench.gpu import train_clips; print(train_clips(0))"
    paths = os.pathsep.join(filter(None, [before, os.environ.get("PYTHONPATH")]))
    told = subprocess.run([sys.executable, "-c", ask], cwd=before, env=os.environ | {"PYTHONPATH": paths},
                          stdout=subprocess.PIPE, text=True, check=True)
    peer = float(told.stdout.split()[-1])
    print(f"video, code of before: {peer:,.1f} clips/s")
    return [entry("video recipe of 16 frames, whole fit", ours, peer, "clips/s", "peer: version 0.10.0")]


PARTS = {"fit": {}, "nvjpeg": dict(decode="gpu"), "compile": dict(compile=True)}


def run(parts=()) -> list:
    "On a GPU the figures; without one the same path on a small scale, and no figure"
    for part in parts:
        if part not in (*PARTS, "video"):
            raise FakesError(f"No part {part!r}{nearest(part, [*PARTS, 'video'])}")
    print(f"{describe_device()}: {AT}")
    folder, made = Path(tempfile.mkdtemp(prefix="bench-gpu")), []
    try:
        made += whole_fits(folder, [p for p in PARTS if p in (parts or PARTS)])
        if not parts or "video" in parts:
            made += clips()
    finally:
        shutil.rmtree(folder)
    if ON_GPU:
        return made
    print("No GPU: a small rehearsal of the path.")
    return []


def whole_fits(folder, names):
    "Those of pictures and texts, each told as soon as it is done; one that fails does not stop the others"
    if not names:
        return []
    reader, made = make_reader(folder, AT["n"] + AT["n_val"]), []
    print(f"plain loop: {plain_rate(reader):,.0f} samples/s")
    for name in names:
        try:
            made += trained(name, reader, folder, **PARTS[name])
            if name == "fit":
                made.append(waiting(reader, folder, made))
        except Exception:
            traceback.print_exc()
    return made
