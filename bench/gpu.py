"`make bench-gpu`: EfficientNet-B0 and DistilBERT fine-tuned end to end from shards, beside the published 40 samples/s and 10 GB at batch 32 on one V100"
import os
import platform
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from bench.reader import draw_jpegs, make_shards
from multimodal_fakes.core import describe_device, pick_device, seed_everything
from multimodal_fakes.data.reader import ShardReader
from multimodal_fakes.experts.encoder import EncoderConf, has_bf16, make_encoder
from multimodal_fakes.experts.expert import make_head
from multimodal_fakes.experts.items import Items
from multimodal_fakes.experts.train import Classifier, fit
from multimodal_fakes.settings import Recipe

PUBLISHED = dict(rate=40.0, memory_gb=10.0)      # fine-tuning at batch 32 on one V100
GPU = dict(n=8000, batch_size=256, epochs=2, size=224, layers=6, n_workers=14)
CPU = dict(n=64, batch_size=8, epochs=1, size=64, layers=1, n_workers=0)      # the same path, small enough to be tried anywhere


class Both(Dataset):
    "Text and picture of the same examples"
    def __init__(self, text, vision, y): self.parts, self.y = {"text": text, "vision": vision}, y
    def __len__(self): return len(self.y)
    def __getitem__(self, draw): return {m: p[draw] for m, p in self.parts.items()} | {"labels": int(self.y[draw[1] if isinstance(draw, tuple) else draw])}

    def collate(self, items):
        batch = {f"{m}_{k}": v for m, p in self.parts.items() for k, v in p.encoder.collate([i[m] for i in items]).items()}
        return batch | {"labels": torch.tensor([i["labels"] for i in items])}


class Same(Both):
    "One example again and again, prepared once: what training costs without its data"
    def __getitem__(self, draw):
        if not hasattr(self, "one"): self.one = super().__getitem__((0, 0))
        return self.one


class Fakeddit(Classifier):
    "The published recipe: 1280 → 512 → 512 and 768 → 512 → 512, then 1024 → 256 → 128 → classes"
    def __init__(self, text, vision):
        super().__init__(2)
        self.text, self.vision = text, vision
        side = lambda dim: nn.Sequential(nn.Dropout(0.3), nn.Linear(dim, 512), nn.ReLU(), nn.Dropout(0.3), nn.Linear(512, 512), nn.ReLU())
        self.sides, self.head = nn.ModuleDict({"text": side(text.dim), "vision": side(vision.dim)}), make_head(1024, 2, [256, 128], 0.4)

    def logits(self, **batch):
        part = lambda m: {k.removeprefix(f"{m}_"): v for k, v in batch.items() if k.startswith(f"{m}_")}
        return self.head(torch.cat([self.sides[m](getattr(self, m).encode(part(m)).pooled) for m in ("text", "vision")], 1))


def encoders(size, layers, texts):
    "Both backbones at their published width, freshly initialised: speed does not depend on the weights, and no hub is needed"
    text = EncoderConf(name="distilbert", modality="text", pooling="cls", arch=dict(model_type="distilbert", n_layers=layers))
    vision = EncoderConf(name="efficientnet_b0", modality="vision", source="efficientnet_b0", pretrained=False, size=size, rotation=15, jitter=0.2)
    return make_encoder(text, texts), make_encoder(vision)


def train(folder, n, batch_size, epochs, size, layers, n_workers):
    "Samples a second, GB at the peak, and the share of the time in which training waits for data"
    words = np.random.default_rng(0).choice("a red blue old car boat man tree near in the park street says found again never".split(), (n, 100))
    step = make_shards(folder, draw_jpegs(folder/"Datasets/drawn", n))
    reader = ShardReader(step, "drawn", "train")
    reader.texts = lambda: [" ".join(w) for w in words[:len(reader)]]              # 100 words: about 128 tokens
    y = reader.targets("fake")
    recipe = Recipe(encoder="", frozen_epochs=0, epochs=epochs, frozen_lr=1e-4, lr=5e-5, weight_decay=0.01, batch_size=batch_size, patience=epochs, loss="cross_entropy", label_smoothing=0.0, n_workers=n_workers, seed=0)
    seconds = {}
    for kind in (Both, Same):
        seed_everything(0)
        text, vision = encoders(size, layers, reader.texts())
        part = lambda rows, r=None: kind(Items(text, reader, rows, recipe=r), Items(vision, reader, rows, recipe=r), y[rows])
        rows = np.arange(len(reader))
        model, data, few = Fakeddit(text, vision), part(rows, recipe), part(rows[:batch_size])
        if pick_device() == "cuda": torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        fit(model, data, few, folder/f"run_{kind.__name__}", epochs, recipe.lr, batch_size, epochs, bf16=has_bf16(), n_workers=n_workers)
        seconds[kind] = time.perf_counter() - began
    memory = torch.cuda.max_memory_allocated() / 1e9 if pick_device() == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return epochs * len(reader) / seconds[Both], memory, max(0.0, 1 - seconds[Same] / seconds[Both])


def run() -> list:
    "On a GPU the figures; without one the same path on a small scale, and no figure"
    how = GPU if pick_device() == "cuda" else CPU
    print(f"{describe_device()}: {how}")
    folder = Path(tempfile.mkdtemp(prefix="bench-gpu"))
    try: rate, memory, waiting = train(folder, **how)
    finally: shutil.rmtree(folder)
    print(f"{rate:,.1f} samples/s, {memory:.1f} GB at the peak, {waiting:.0%} of the time waiting for data")
    if how is CPU:
        print(f"No GPU: a small rehearsal of the path. With one, {GPU['n']:,} pictures of {GPU['size']} px and texts of 128 tokens would be trained on at batch {GPU['batch_size']}, beside {PUBLISHED['rate']:.0f} samples/s published.")
        return []
    data = f"{how['n']:,} drawn JPEG of 256-512 px, 224 px, 128 tokens, batch {how['batch_size']}, DistilBERT + EfficientNet-B0 end to end; {waiting:.0%} of the time waiting for data; peer: published, batch 32, one V100"
    about = dict(command="make bench-gpu", machine=f"{platform.machine()}, {os.cpu_count()} cores, {describe_device()}", data=data)
    return [dict(name="end-to-end fine-tuning from shards", ours=round(rate, 1), peer=PUBLISHED["rate"], ratio=round(rate / PUBLISHED["rate"], 2), unit="samples/s", higher_is_better=True, **about),
            dict(name="end-to-end fine-tuning, peak memory", ours=round(memory, 2), peer=PUBLISHED["memory_gb"], ratio=round(memory / PUBLISHED["memory_gb"], 2), unit="GB", higher_is_better=False, **about)]
