"""`make bench-gpu`: EfficientNet-B0 and DistilBERT fine-tuned end to end from shards.

Beside the published 40 samples/s and 10 GB at batch 32 on one V100."""
import os
import platform
import resource
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from bench.reader import draw_jpegs, make_shards
from multimodal_fakes.core import describe_device, pick_device, seed_everything
from multimodal_fakes.data.reader import ShardReader
from multimodal_fakes.experts.encoder import EncoderConf, make_encoder, pick_precision
from multimodal_fakes.experts.expert import make_head
from multimodal_fakes.experts.items import Items
from multimodal_fakes.experts.train import Classifier, fit
from multimodal_fakes.settings import Recipe

PUBLISHED = dict(rate=40.0, memory_gb=10.0)      # fine-tuning at batch 32 on one V100
GPU = dict(n=8000, batch_size=256, epochs=2, size=224, layers=6, n_workers=14)
CPU = dict(n=64, batch_size=8, epochs=1, size=64, layers=1, n_workers=0)      # the same path, for any machine
TOKENS = 128         # of a text of 100 words, about
WORDS = "a red blue old car boat man tree near in the park street says found again never".split()


class Both(Dataset):
    "Text and picture of the same examples"
    def __init__(self, text, vision, y):
        self.parts = {"text": text, "vision": vision}
        self.y = y

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
            tensors = part.encoder.collate([item[m] for item in items])
            if m == "text":      # at one length, as the parts of a batch come from several workers
                tensors = {k: nn.functional.pad(t, (0, TOKENS - t.shape[1])) for k, t in tensors.items()}
            batch |= {f"{m}_{name}": tensor for name, tensor in tensors.items()}
        return batch | {"labels": torch.tensor([item["labels"] for item in items])}

    def finish(self, batch):
        "Pictures changed on the device"
        pictures = {k.removeprefix("vision_"): v for k, v in batch.items() if k.startswith("vision_")}
        made = self.parts["vision"].encoder.change(pictures)
        rest = {k: v for k, v in batch.items() if not k.startswith("vision_")}
        return rest | {f"vision_{k}": v for k, v in made.items()}


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


def encoders(size, layers, texts):
    """Both backbones at their published width, freshly initialised.

    Speed does not depend on the weights, and no hub is needed."""
    arch = dict(model_type="distilbert", n_layers=layers)
    text = EncoderConf(name="distilbert", modality="text", pooling="cls", arch=arch)
    vision = EncoderConf(
        name="efficientnet_b0",
        modality="vision",
        source="efficientnet_b0",
        pretrained=False,
        size=size,
        rotation=15,
        jitter=0.2,
    )
    return make_encoder(text, texts), make_encoder(vision)


def make_reader(folder, n):
    "Drawn pictures with texts of 100 words, about 128 tokens"
    words = np.random.default_rng(0).choice(WORDS, (n, 100))
    step = make_shards(folder, draw_jpegs(folder/"Datasets/drawn", n))
    reader = ShardReader(step, "drawn", "train")
    reader.texts = lambda: [" ".join(w) for w in words[:len(reader)]]
    return reader


def make_recipe(epochs, batch_size, n_workers):
    "All layers trained"
    return Recipe(
        encoder="",
        frozen_epochs=0,
        epochs=epochs,
        frozen_lr=1e-4,
        lr=5e-5,
        weight_decay=0.01,
        batch_size=batch_size,
        patience=epochs,
        loss="cross_entropy",
        label_smoothing=0.0,
        n_workers=n_workers,
        seed=0,
    )


def make_data(kind, reader, text, vision, rows, recipe=None):
    "Items of both modalities; with a recipe as training sees them"
    text_items = Items(text, reader, rows, recipe=recipe)
    vision_items = Items(vision, reader, rows, recipe=recipe)
    return kind(text_items, vision_items, reader.targets("fake")[rows])


def fit_seconds(kind, reader, folder, recipe, size, layers):
    "Seconds of one training"
    seed_everything(0)
    text, vision = encoders(size, layers, reader.texts())
    rows = np.arange(len(reader))
    make = partial(make_data, kind, reader, text, vision)
    model = Fakeddit(text, vision)
    data = make(rows, recipe)
    few = make(rows[:recipe.batch_size])
    if pick_device() == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    fit(model, data, few, folder/f"run_{kind.__name__}", recipe.epochs, recipe.lr, recipe.batch_size, recipe.patience,
        precision=pick_precision(), n_workers=recipe.n_workers)
    return time.perf_counter() - began


def peak_gb():
    "GB at the peak: of the GPU, or of this process where there is none"
    if pick_device() == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def train(folder, n, batch_size, epochs, size, layers, n_workers):
    "Samples a second, GB at the peak, and the share of the time in which training waits for data"
    reader = make_reader(folder, n)
    recipe = make_recipe(epochs, batch_size, n_workers)
    seconds = fit_seconds(Both, reader, folder, recipe, size, layers)
    without_data = fit_seconds(Same, reader, folder, recipe, size, layers)
    waiting = max(0.0, 1 - without_data / seconds)
    return epochs * len(reader) / seconds, peak_gb(), waiting


def figures(rate, memory, waiting):
    "Both as results.json keeps them"
    data = (f"{GPU['n']:,} drawn JPEG of 256-512 px, 224 px, 128 tokens, batch {GPU['batch_size']}, "
            f"DistilBERT + EfficientNet-B0 end to end; {waiting:.0%} of the time waiting for data; "
            "peer: published, batch 32, one V100")
    about = dict(
        command="make bench-gpu",
        machine=f"{platform.machine()}, {os.cpu_count()} cores, {describe_device()}",
        data=data,
    )
    speed = dict(
        name="end-to-end fine-tuning from shards",
        ours=round(rate, 1),
        peer=PUBLISHED["rate"],
        ratio=round(rate / PUBLISHED["rate"], 2),
        unit="samples/s",
        higher_is_better=True,
    )
    peak = dict(
        name="end-to-end fine-tuning, peak memory",
        ours=round(memory, 2),
        peer=PUBLISHED["memory_gb"],
        ratio=round(memory / PUBLISHED["memory_gb"], 2),
        unit="GB",
        higher_is_better=False,
    )
    return [speed | about, peak | about]


def run() -> list:
    "On a GPU the figures; without one the same path on a small scale, and no figure"
    options = GPU if pick_device() == "cuda" else CPU
    print(f"{describe_device()}: {options}")
    folder = Path(tempfile.mkdtemp(prefix="bench-gpu"))
    try:
        rate, memory, waiting = train(folder, **options)
    finally:
        shutil.rmtree(folder)
    print(f"{rate:,.1f} samples/s, {memory:.1f} GB at the peak, {waiting:.0%} of the time waiting for data")
    if options is GPU:
        return figures(rate, memory, waiting)
    print(f"No GPU: a small rehearsal of the path. With one, {GPU['n']:,} pictures of {GPU['size']} px and texts of "
          f"128 tokens would be trained on at batch {GPU['batch_size']}, "
          f"beside {PUBLISHED['rate']:.0f} samples/s published.")
    return []
