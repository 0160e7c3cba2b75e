"How fast the reader of the shards is: beside loose files, and beside the raw decoder"
import os
import platform
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader, Dataset, RandomSampler

from multimodal_fakes.data.manifest import write_manifest
from multimodal_fakes.data.reader import ShardReader
from multimodal_fakes.data.shard import shard_all
from multimodal_fakes.media import open_image

N = 2000         # pictures
WORKERS = 2      # processes
BATCH = 32       # pictures of a batch
ROUNDS = 9
TAKE = 512       # pictures of a round
CONF = """name: drawn
title: drawn here
licence: Apache-2.0
obtain: drawn here
files: [{path: rows.csv}]
labels: {fake: {column: label, map: {0: real, 1: fake}}}
"""

def draw_picture(rng):
    "256 to 512 pixels a side: coarse noise, as rich in detail as a photograph, with shapes on it"
    w, h = rng.integers(256, 513, 2).tolist()
    noise = rng.integers(0, 256, (h // 8, w // 8, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((w, h), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, r = rng.integers(20, 200, 3).tolist()
        colour = rng.integers(0, 256, 3).tolist()
        draw.ellipse((x, y, x + r, y + r), fill=tuple(colour))
    return image

def draw_jpegs(folder, n=N, seed=0):
    "JPEG files of drawn pictures"
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    paths = [folder/f"{i:05d}.jpg" for i in range(n)]
    for path in paths:
        draw_picture(rng).save(path, quality=88)
    return paths

def make_post(i, path):
    "A row of the manifest"
    return dict(
        id=f"drawn_train_{i}",
        dataset="drawn",
        split="train",
        text_raw=f"picture {i}",
        image_path=f"drawn/{path.name}",
        labels_raw={"label": i % 2},
        group=str(i),
        meta={"lang": "en"},
    )

def make_shards(home, paths):
    "The same pictures through stage 3"
    folder = home/"conf/dataset"
    folder.mkdir(parents=True)
    (folder/"drawn.yaml").write_text(CONF)
    posts = (make_post(i, path) for i, path in enumerate(paths))
    write_manifest(home/"Step_2", posts)
    shard_all(home, home, val_share=0.0, test_share=0.0)
    return home/"Step_3"

def to_tensor(image, size):
    "Square, as bytes"
    resized = image.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(resized).copy())

class Loose(Dataset):
    "What most training scripts do: a list of files, PIL"
    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        with Image.open(self.paths[i]) as image:
            return dict(image=image.convert("RGB"))

class Sized(Dataset):
    "Pictures resized in the worker; batches of tensors leave it"
    def __init__(self, data, size):
        self.data = data
        self.size = size

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        return to_tensor(self.data[i]["image"], self.size)

def loader(data, size):
    "Shuffled, its workers kept between rounds"
    generator = torch.Generator().manual_seed(0)
    return DataLoader(
        Sized(data, size),
        batch_size=BATCH,
        sampler=RandomSampler(range(len(data)), num_samples=TAKE, generator=generator),
        num_workers=WORKERS,
        persistent_workers=True,
    )

def loader_rate(batches):
    "Samples a second of one round"
    began = time.perf_counter()
    n = sum(len(b) for b in batches)
    return n / (time.perf_counter() - began)

BLOBS = []               # bytes of the pictures; forked processes see them

def decode_part(part, size, side):
    "The machine's limit: bytes in memory, decoded and resized, nothing else"
    for k in part:
        to_tensor(open_image(BLOBS[k], side=side), size)
    return len(part)

def limit_rate(pool, size, rng):
    "Samples a second of as many processes as a loader has workers"
    picks = rng.permutation(len(BLOBS))[:TAKE]
    parts = np.array_split(picks, WORKERS)
    decode = partial(decode_part, size=size, side=size)
    began = time.perf_counter()
    n = sum(pool.map(decode, parts))
    return n / (time.perf_counter() - began)

def interleaved(contestants, rounds=ROUNDS):
    """Samples a second of each contestant in each round.

    They take turns, so that whatever else the machine does hits all of them."""
    for f in contestants.values():
        f()                                                  # processes are up, files are in the page cache
    rates = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, f in contestants.items():
            rates[name].append(f())
    return rates

def measure(paths, step, size, full):
    "Rates of ours, of loose files, of the decoder alone, and of ours when JPEG files are not decoded smaller"
    torch.set_num_threads(1)
    data = {"ours": ShardReader(step, "drawn", "train", side=size), "loose files": Loose(paths)}
    if full:
        data["full decode"] = ShardReader(step, "drawn", "train")
    rng = np.random.default_rng(0)
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("fork")) as pool:
        contestants = {"decoder": partial(limit_rate, pool, size, rng)}
        for name, pictures in data.items():
            contestants[name] = partial(loader_rate, loader(pictures, size))
        return interleaved(contestants)

def entry(name, ours, peer, data):
    "One figure: median rates, and the median of the ratios of each round"
    ratios = [a / b for a, b in zip(ours, peer)]
    return dict(
        name=name,
        ours=round(statistics.median(ours), 1),
        peer=round(statistics.median(peer), 1),
        ratio=round(statistics.median(ratios), 3),
        unit="samples/s",
        higher_is_better=True,
        command="python -m bench.reader",
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        data=data,
    )

def figures(paths, step, size):
    "Those of one size"
    rates = measure(paths, step, size, full=size == 224)
    ours, loose = rates["ours"], rates["loose files"]
    data = (f"{N} JPEG of 256-512 px drawn from seed 0, decoded and resized to {size} px, {WORKERS} workers, "
            f"shuffled, median of {ROUNDS} rounds of {TAKE}")
    entries = [
        entry(f"reader, {size} px, against loose files", ours, loose, data),
        entry(f"reader, {size} px, against the decoder alone", ours, rates["decoder"], data),
    ]
    if "full decode" in rates:
        name = f"reader with full decode, {size} px, against loose files"
        entries.append(entry(name, rates["full decode"], loose, data))
    return entries

def run() -> list:
    "The figures of the reader: against loose files, and against the decoder with bytes in memory"
    folder = Path(tempfile.mkdtemp(prefix="reader"))
    try:
        paths = draw_jpegs(folder/"Datasets/drawn")
        step = make_shards(folder, paths)
        BLOBS[:] = [p.read_bytes() for p in paths]
        return figures(paths, step, 128) + figures(paths, step, 224)
    finally:
        shutil.rmtree(folder)

def main():
    for e in run():
        print(f"{e['name']:60} {e['ours']:8,.0f} / {e['peer']:8,.0f} {e['unit']}  = {e['ratio']:.2f}")

if __name__ == "__main__":
    main()
