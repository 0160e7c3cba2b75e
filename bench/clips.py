"What cutting videos out once is worth: extraction beside a script that searches every frame, training from what was cut out beside cutting in each epoch, and decoding beside PyAV's plain loop and beside the decoder alone"
import io
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

import av
import numpy as np
from PIL import Image

from bench.reader import interleaved
from multimodal_fakes.core import FakesError, read_json, root, seed_everything, sha256_file, write_jsonl
from multimodal_fakes.data.extract import SEARCHED, extract_all, to_flac
from multimodal_fakes.data.face import face_clip
from multimodal_fakes.data.reader import ShardReader
from multimodal_fakes.data.shard import shard_all
from multimodal_fakes.experts.encoder import load_encoder_conf, make_encoder
from multimodal_fakes.experts.expert import Expert
from multimodal_fakes.experts.items import Items
from multimodal_fakes.experts.train import fit
from multimodal_fakes.media import RATE, read_audio, read_frames, write_clip
from multimodal_fakes.settings import Clip, Recipe

PILOT = root()/"Datasets/pilot_deepfake"
N, SCRIPTED, WORKERS = 100, 16, 2           # clips, of which the script extracts so many, processes
ROUNDS = {"cascade": 1, "none": 3}         # first epochs of each expert that are timed, after one to warm up
CUT = dict(seconds=3.0, rate=12.5, side=96, face="cascade", rule="largest", margin=0.3)


def pilot():
    "So many clips, evenly out of all"
    clips = sorted(PILOT.glob("*/*/video.mp4"))
    if len(clips) < N: raise FakesError(f"{PILOT} holds {len(clips)} clips, {N} are needed: python -m multimodal_fakes.pilots.clips Datasets")
    return [clips[i] for i in np.linspace(0, len(clips) - 1, N).astype(int)]


def script(path):
    "What most scripts do: the face looked for in every frame, a file for each"
    frames, _ = read_frames(path, dict(n=round(CUT["seconds"] * CUT["rate"])), SEARCHED)
    crops, _, _ = face_clip(frames, CUT["face"], CUT["side"], CUT["rule"], CUT["margin"], looks=0)
    for k, crop in enumerate(crops): Image.fromarray(crop).save(io.BytesIO(), "JPEG", quality=92)
    return len(to_flac(read_audio(path)))

def extraction(clips):
    "Clips a second of both, the start of their processes included"
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as d: extract_all({str(p): (p, None, sha256_file(p)) for p in clips}, d, Clip(**CUT), WORKERS)
    ours, began = len(clips) / (time.perf_counter() - began), time.perf_counter()
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool: list(pool.map(script, clips[:SCRIPTED]))
    return [ours], [SCRIPTED / (time.perf_counter() - began)]


def make_shards(home, clips, decode, face):
    "The clips through stage 3"
    (home/"Datasets").mkdir(parents=True); (home/"Datasets/pilot_deepfake").symlink_to(PILOT)
    row = lambda i, p: dict(id=f"pilot_{i}", dataset="pilot_deepfake", split="train" if i < N - 8 else "val", video_path=str(p.relative_to(PILOT.parent)), audio_path=str(p.relative_to(PILOT.parent)),
                            labels_raw=read_json(p.parent/"meta.json"), group=str(i), meta={"sha256": sha256_file(p)})
    write_jsonl(home/"Step_2/data_manifest.jsonl", (row(i, p) for i, p in enumerate(clips))); write_jsonl(home/"Step_2/ocr.jsonl", [])
    shard_all(home, home, test_share=0.0, clip=Clip(**CUT | dict(decode=decode, face=face)).model_dump())
    return ShardReader(home/"Step_3", "pilot_deepfake")

def train(reader, modality):
    "Clips a second of an expert's first epoch, validation on eight included"
    seed_everything(0)
    recipe = Recipe(encoder=f"small_{modality}", frozen_epochs=0, epochs=1, frozen_lr=1e-3, lr=1e-3, weight_decay=0.01, batch_size=16, patience=1, loss="cross_entropy", label_smoothing=0.0, n_workers=0, seed=0)
    y, split = reader.targets("fake"), reader.frame.split
    model, rows = Expert(make_encoder(load_encoder_conf(recipe.encoder)), 2), {s: np.flatnonzero(split == s) for s in ("train", "val")}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as d:
        fit(model, Items(model.encoder, reader, rows["train"], y[rows["train"]], recipe, 2), Items(model.encoder, reader, rows["val"], y[rows["val"]]), d, 1, recipe.lr, recipe.batch_size, 1, recipe.weight_decay, 0)
    return len(reader) / (time.perf_counter() - began)


def with_ours(clips): return sum(len(read_frames(p)[0]) for p in clips)

def with_loop(clips):
    "PyAV as its documentation shows it"
    n = 0
    for p in clips:
        with av.open(str(p)) as clip: n += len(np.stack([f.to_ndarray(format="rgb24") for f in clip.decode(video=0)]))
    return n

def decoder_alone(clips):
    "The machine's limit: as many threads as the decoder likes, and no pixel looked at"
    n = 0
    for p in clips:
        with av.open(str(p)) as clip:
            clip.streams.video[0].thread_type = "AUTO"
            n += sum(1 for _ in clip.decode(video=0))
    return n

def rate(f, clips):
    "Frames a second"
    began = time.perf_counter()
    n = f(clips)
    return n / (time.perf_counter() - began)

def large(folder):
    "Ten seconds at 1280 × 720: a patterned ground that slides"
    ground = np.random.default_rng(0).integers(0, 256, (90, 220, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    write_clip(folder/"large.mp4", (ground[:, 2 * i:2 * i + 1280] for i in range(230)), 23)
    return folder/"large.mp4"


def entry(name, ours, peer, unit, data):
    "One figure: median rates, and the median of the ratios of each round"
    median = statistics.median
    return dict(name=name, ours=round(median(ours), 1), peer=round(median(peer), 1), ratio=round(median(a / b for a, b in zip(ours, peer)), 3), unit=unit, higher_is_better=True,
                command="python -m bench clips", machine=f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", data=data)


def run() -> list:
    "Extraction, training and decoding"
    folder, clips = Path(tempfile.mkdtemp(prefix="clips")), pilot()
    about = f"{N} clips of pilot_deepfake (seed 0), {CUT['seconds']:g} s at {CUT['rate']:g} frames/s"
    try:
        found = [entry("extraction of clips against a script that searches every frame", *extraction(clips), "clips/s", f"{about}, {WORKERS} processes; {SCRIPTED} of them for the script")]
        for face in ROUNDS:
            readers = {d: make_shards(folder/f"{face}_{d}", clips, d, face) for d in ("preextracted", "on_the_fly")}
            for m in ("video", "audio")[:2 if face == "none" else 1]:         # sound knows no face
                r = interleaved({d: partial(train, reader, m) for d, reader in readers.items()}, ROUNDS[face])
                found.append(entry(f"training small_{m}, preextracted against on_the_fly" + f", face: {face}" * (m == "video"), r["preextracted"], r["on_the_fly"], "samples/s", f"{about}, first epoch, batch 16, seed 0, median of {ROUNDS[face]}"))
        for data, files in {"the same pilot clips, 120 to 240 px": clips, "10 s drawn at 1280 × 720": [large(folder)]}.items():
            r = interleaved({f.__name__: partial(rate, f, files) for f in (with_ours, with_loop, decoder_alone)}, 5)
            found += [entry(f"all frames of a video against {what}, {data}", r["with_ours"], r[f], "frames/s", f"{data}, one process, median of 5") for what, f in (("PyAV's plain loop", "with_loop"), ("the decoder alone", "decoder_alone"))]
    finally: shutil.rmtree(folder)
    return found


if __name__ == "__main__":
    for e in run(): print(f"{e['name']:90} {e['ours']:8,.1f} / {e['peer']:8,.1f} {e['unit']}  = {e['ratio']:.2f}")
