"""What storing features is worth.

An epoch of a head over stored features beside an epoch that encodes, and filling the store beside encoding alone."""
import os
import platform
import tempfile
import time
from types import SimpleNamespace

import numpy as np
import torch

from bench.text_training import headlines
from multimodal_fakes.core import seed_everything
from multimodal_fakes.experts.encoder import load_encoder_conf, make_encoder
from multimodal_fakes.experts.expert import Expert, HeadOnly
from multimodal_fakes.experts.features import FeatureStore, encode, encoder_key
from multimodal_fakes.experts.items import Items
from multimodal_fakes.experts.train import Classifier, Features, fit
from multimodal_fakes.record import text_field

N = 20_000      # headlines
N_VAL = 64      # of them, to validate on
EPOCHS = 5      # of the head over stored features
FIT = dict(lr=1e-3, batch_size=64, patience=9)


class Encoding(Classifier):
    "An expert whose encoder stays as it is, but is asked anew for each batch"
    def __init__(self, expert):
        super().__init__(2)
        self.encoder = expert.encoder.requires_grad_(False)
        self.head = expert.head

    def logits(self, **batch):
        with torch.no_grad():
            pooled = self.encoder.eval().encode(batch).pooled
        return self.head(pooled)


def timed(f):
    "Seconds and result"
    began = time.perf_counter()
    result = f()
    return time.perf_counter() - began, result


def entry(name, ours, peer, unit, higher):
    "One figure as results.json keeps it"
    return dict(
        name=name,
        ours=round(ours, 4),
        peer=round(peer, 4),
        ratio=round(ours / peer, 3),
        unit=unit,
        higher_is_better=higher,
        command="python -m bench frozen",
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        data=f"{N:,} clickbait headlines, all-MiniLM-L6-v2, float32, batch 64",
    )


def run() -> list:
    "The two figures, on the same headlines"
    seed_everything(0)
    texts, y, _ = headlines()
    rows = np.random.default_rng(0).permutation(len(texts))[:N]
    few_rows = rows[:N_VAL]
    reader = SimpleNamespace(texts=lambda: [text_field(t, lang="en") for t in texts])
    expert = Expert(make_encoder(load_encoder_conf("minilm")), 2)
    encoder = expert.encoder
    items = Items(encoder, reader, rows, y[rows])
    few = Items(encoder, reader, few_rows, y[few_rows])
    encode(encoder, few, bar=False)                                         # libraries are loaded
    with tempfile.TemporaryDirectory() as d:
        store = FeatureStore(d, encoder_key(encoder))
        keys = items.keys()
        pass_seconds, _ = timed(lambda: encode(encoder, items, bar=False))
        fill_seconds, _ = timed(lambda: store.fill(encoder, keys, items, bar=False))
        stored = Features(features=store.pooled(keys), labels=y[rows])
        val = Features(features=store.pooled(keys[:N_VAL]), labels=y[few_rows])
        head_seconds, _ = timed(lambda: fit(HeadOnly(expert), stored, val, f"{d}/head", EPOCHS, **FIT))
        epoch_seconds, _ = timed(lambda: fit(Encoding(expert), items, few, f"{d}/encoding", 1, **FIT))
    of_head = "an epoch of the head over stored features against one that encodes"
    of_store = "filling the feature store against one pass of encoding"
    return [
        entry(of_head, head_seconds / EPOCHS, epoch_seconds, "s", False),
        entry(of_store, fill_seconds, pass_seconds, "s", False),
    ]
