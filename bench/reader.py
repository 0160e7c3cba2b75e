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

from multimodal_fakes.core import write_jsonl
from multimodal_fakes.data.reader import ShardReader
from multimodal_fakes.data.shard import shard_all
from multimodal_fakes.media import open_image

N, WORKERS, BATCH, ROUNDS, TAKE = 2000, 2, 32, 9, 512     # pictures, processes, pictures of a batch, rounds, pictures of a round
CONF = """name: drawn
title: drawn here
licence: Apache-2.0
obtain: drawn here
files: [{path: rows.csv}]
labels: {fake: {column: label, map: {0: real, 1: fake}}}
"""

def draw_jpegs(folder, n=N, seed=0):
    "JPEG files of 256 to 512 pixels: coarse noise, as rich in detail as a photograph, with shapes on it"
    rng, paths = np.random.default_rng(seed), []
    folder.mkdir(parents=True)
    for i in range(n):
        w, h = (int(v) for v in rng.integers(256, 513, 2))
        im = Image.fromarray(rng.integers(0, 256, (h // 8, w // 8, 3), dtype=np.uint8)).resize((w, h), Image.Resampling.BICUBIC)
        d = ImageDraw.Draw(im)
        for _ in range(6):
            x, y, r = (int(v) for v in rng.integers(20, 200, 3))
            d.ellipse((x, y, x + r, y + r), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
        im.save(folder/f"{i:05d}.jpg", quality=88)
        paths.append(folder/f"{i:05d}.jpg")
    return paths

def make_shards(home, paths):
    "The same pictures through stage 3"
    (home/"conf/dataset").mkdir(parents=True); (home/"conf/dataset/drawn.yaml").write_text(CONF)
    write_jsonl(home/"Step_2/data_manifest.jsonl", (dict(id=f"drawn_train_{i}", dataset="drawn", split="train", text_raw=f"picture {i}", image_path=f"drawn/{p.name}",
                                                       labels_raw={"label": i % 2}, group=str(i), meta={"lang": "en"}) for i, p in enumerate(paths)))
    write_jsonl(home/"Step_2/ocr.jsonl", [])
    shard_all(home, home, val_share=0.0, test_share=0.0)
    return home/"Step_3"

def to_tensor(image, size):
    "Square, as bytes"
    return torch.from_numpy(np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).copy())

class Loose(Dataset):
    "What most training scripts do: a list of files, PIL"
    def __init__(self, paths): self.paths = paths
    def __len__(self): return len(self.paths)
    def __getitem__(self, i):
        with Image.open(self.paths[i]) as image: return dict(image=image.convert("RGB"))

class Sized(Dataset):
    "Pictures resized in the worker; batches of tensors leave it"
    def __init__(self, data, size): self.data, self.size = data, size
    def __len__(self): return len(self.data)
    def __getitem__(self, i): return to_tensor(self.data[i]["image"], self.size)

def loader(data, size):
    "Shuffled, its workers kept between rounds"
    picks = RandomSampler(range(len(data)), num_samples=TAKE, generator=torch.Generator().manual_seed(0))
    return DataLoader(Sized(data, size), batch_size=BATCH, sampler=picks, num_workers=WORKERS, persistent_workers=True)

def loader_rate(batches):
    "Samples a second of one round"
    began = time.perf_counter()
    n = sum(len(b) for b in batches)
    return n / (time.perf_counter() - began)

BLOBS = []

def decode_part(part, size, side):
    "The machine's limit: bytes in memory, decoded and resized, nothing else"
    for k in part: to_tensor(open_image(BLOBS[k], side=side), size)
    return len(part)

def limit_rate(pool, size, side, rng):
    "Samples a second of as many processes as a loader has workers"
    picks = np.array_split(rng.permutation(len(BLOBS))[:TAKE], WORKERS)
    began = time.perf_counter()
    n = sum(pool.map(partial(decode_part, size=size, side=side), picks))
    return n / (time.perf_counter() - began)

def interleaved(contestants, rounds=ROUNDS):
    "Samples a second of each contestant in each round; they take turns, so that whatever else the machine does hits all of them"
    for f in contestants.values(): f()                       # processes are up, files are in the page cache
    rates = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, f in contestants.items(): rates[name].append(f())
    return rates

def measure(paths, step, size, full):
    "Rates of ours, of loose files, of the decoder alone, and of ours without the JPEG decoder's help in making pictures small"
    torch.set_num_threads(1)
    data = {"ours": ShardReader(step, "drawn", "train", side=size), "loose files": Loose(paths), **({"full decode": ShardReader(step, "drawn", "train")} if full else {})}
    rng = np.random.default_rng(0)
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("fork")) as pool:
        runs = {"decoder": lambda: limit_rate(pool, size, size, rng)}
        return interleaved(runs | {name: partial(loader_rate, loader(d, size)) for name, d in data.items()})

def entry(name, ours, peer, data):
    "One figure: median rates, and the median of the ratios of each round"
    median = statistics.median
    return dict(name=name, ours=round(median(ours), 1), peer=round(median(peer), 1), ratio=round(median(a / b for a, b in zip(ours, peer)), 3), unit="samples/s", higher_is_better=True,
                command="python -m bench.reader", machine=f"{platform.machine()}, {os.cpu_count()} cores", data=data)

def run() -> list:
    "The figures of the reader: against loose files, and against the decoder with bytes in memory"
    folder, found = Path(tempfile.mkdtemp(prefix="reader")), []
    try:
        paths = draw_jpegs(folder/"Datasets/drawn")
        step = make_shards(folder, paths)
        BLOBS[:] = [p.read_bytes() for p in paths]
        for size in (128, 224):
            r = measure(paths, step, size, full=size == 224)
            data = f"{N} JPEG of 256-512 px drawn from seed 0, decoded and resized to {size} px, {WORKERS} workers, shuffled, median of {ROUNDS} rounds of {TAKE}"
            found += [entry(f"reader, {size} px, against loose files", r["ours"], r["loose files"], data),
                      entry(f"reader, {size} px, against the decoder alone", r["ours"], r["decoder"], data)]
            if "full decode" in r: found.append(entry(f"reader with full decode, {size} px, against loose files", r["full decode"], r["loose files"], data))
    finally: shutil.rmtree(folder)
    return found

if __name__ == "__main__":
    for e in run(): print(f"{e['name']:60} {e['ours']:8,.0f} / {e['peer']:8,.0f} {e['unit']}  = {e['ratio']:.2f}")
