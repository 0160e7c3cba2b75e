"""What a core takes to decode and change what training reads, beside the way of before, which stands here alone.

Both ways take turns in one process with one thread, and the best of some rounds counts: a figure of two ways that
share their disturbances. Pictures and frames are drawn from a seed."""
import io
import math
import time

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from bench.reader import draw_picture
from bench.scale import entry
from multimodal_fakes.core import need
from multimodal_fakes.experts.changes import augment, drawn_changes, quick_square
from multimodal_fakes.experts.confs import load_encoder_conf
from multimodal_fakes.experts.encoder_av import augment_clip
from multimodal_fakes.experts.loader import Loader, joined, keep_memory
from multimodal_fakes.experts.preprocess import to_square

N = 48          # pictures
SIDE = 500      # pixels of their longer side
ROUNDS = 5
FRAMES = 16     # of a clip
BATCH = 256     # pictures of the first batch
WORKERS = 2


def drawn_files():
    "JPEG files of 500 pixels"
    rng = np.random.default_rng(0)
    for _ in range(N):
        file = io.BytesIO()
        draw_picture(rng).resize((SIDE, int(rng.integers(333, SIDE + 1)))).save(file, "JPEG", quality=88)
        yield file.getvalue()


def former_augment(pixels, conf, generator):
    "As 0.10 did: torch on floats, one change after the other"
    if conf.flip and torch.rand((), generator=generator).item() < 0.5:
        pixels = pixels.flip(-1)
    if conf.rotation:
        pixels = former_turned(pixels, conf.rotation * (2 * torch.rand((), generator=generator).item() - 1))
    return former_jittered(pixels, conf.jitter, generator)


def former_turned(pixels, degrees):
    "By torch's grid"
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    planes = pixels.reshape(1, -1, *pixels.shape[-2:]).float()
    grid = nn.functional.affine_grid(torch.tensor([[[c, -s, 0], [s, c, 0]]]), list(planes.shape), align_corners=False)
    values = nn.functional.grid_sample(planes, grid, padding_mode="reflection", align_corners=False)
    return values.round().to(torch.uint8).view(pixels.shape)


def former_jittered(pixels, strength, generator):
    "By torchvision"
    F = need("torchvision.transforms.v2.functional", "torch", "This bench")
    x = pixels.float() / 255
    adjustments = F.adjust_brightness, F.adjust_contrast, F.adjust_saturation
    for adjust, u in zip(adjustments, torch.rand(3, generator=generator).tolist()):
        x = adjust(x, max(0, 1 + strength * (2 * u - 1)))
    return (x * 255).round().to(torch.uint8)


def former_square(data, size):
    "By Pillow, as what is judged still is"
    return torch.from_numpy(to_square(data, size))


def milliseconds(examples, *ways):
    "CPU time an example of each way, the best of the rounds, in which they take turns"
    best = [math.inf] * len(ways)
    for way in ways:
        way(examples[0])
    for _ in range(ROUNDS):
        for k, way in enumerate(ways):
            began = time.process_time()
            for example in examples:
                way(example)
            best[k] = min(best[k], time.process_time() - began)
    return [1000 * seconds / len(examples) for seconds in best]


def pictures(files):
    "A picture of the EfficientNet-B0 recipe: decoded and changed, and what is left where a GPU changes batches"
    conf, generator = load_encoder_conf("efficientnet_b0"), torch.Generator().manual_seed(0)

    def before(file):
        return former_augment(former_square(file, conf.size), conf, generator)

    def now(file):
        return augment(quick_square(file, conf.size), conf, generator)

    def with_gpu(file):
        return quick_square(file, conf.size), drawn_changes(conf, conf.size, generator)

    peer, ours, left = milliseconds(files, before, now, with_gpu)
    what = f"a JPEG of {SIDE} px decoded and changed for EfficientNet-B0"
    return [
        entry(what, ours, "CPU ms", peer / 2, peer),
        entry(f"{what}, where a GPU makes the changes", left, "CPU ms", peer / 2, peer),
    ]


def clips(files):
    "A clip of 16 frames, changed as EfficientNet-B0 reads pictures; and as the published deepfake recipe has it"
    conf, generator = load_encoder_conf("efficientnet_b0"), torch.Generator().manual_seed(0)
    clip = torch.stack([quick_square(file, conf.size) for file in files[:FRAMES]])
    changes = [lambda c: former_augment(c, conf, generator), lambda c: augment(c, conf, generator),
               lambda c: drawn_changes(conf, conf.size, generator)]
    peer, ours, left = milliseconds([clip] * 3, *changes)
    what = f"{FRAMES} frames changed as EfficientNet-B0 asks"
    deepfake = load_encoder_conf("efficientnet_b3_video")
    large = torch.stack([quick_square(file, deepfake.size) for file in files[:FRAMES]])
    whole = milliseconds([large] * 6, lambda c: augment_clip(c, deepfake, generator))[0]
    return [
        entry(what, ours, "CPU ms", None, peer),
        entry(f"{what}, where a GPU makes the changes", left, "CPU ms", peer / 5, peer),
        entry(f"{FRAMES} frames changed as efficientnet_b3_video asks, with JPEG and H.264", whole, "CPU ms"),
    ]


class Pictures(Dataset):
    "Files as training reads them"
    def __init__(self, files, prepare):
        self.files, self.prepare = files, prepare

    def __len__(self):
        return 2 * BATCH

    def __getitem__(self, i):
        return {"pixels": self.prepare(self.files[i % len(self.files)])}

    def collate(self, items):
        return {"pixels": torch.stack([i["pixels"] for i in items])}


def first_batch(files):
    "Seconds until the first batch of an epoch is there, by the parts of a batch and by whole batches"
    conf, generator = load_encoder_conf("efficientnet_b0"), torch.Generator().manual_seed(0)
    now = Pictures(files, lambda file: augment(quick_square(file, conf.size), conf, generator))
    before = Pictures(files, lambda file: former_augment(former_square(file, conf.size), conf, generator))
    numbers = np.arange(2 * BATCH).reshape(2, BATCH).tolist()
    ours = seconds_of_first(Loader(now, numbers, WORKERS))
    peer = seconds_of_first(DataLoader(before, BATCH, num_workers=WORKERS, collate_fn=before.collate))
    return [entry(f"first batch of {BATCH} pictures from {WORKERS} workers", ours, "s", None, peer)]


def seconds_of_first(loader):
    "From the start of an epoch"
    began = time.perf_counter()
    batches = iter(loader)
    joined(next(batches))
    took = time.perf_counter() - began
    for _ in batches:
        pass
    return took


def run(parts=()):
    "The entries of all"
    torch.set_num_threads(1)
    keep_memory()
    files = list(drawn_files())
    return pictures(files) + clips(files) + first_batch(files)
