"""What cutting videos out once is worth, beside three peers:

extraction beside a script that searches every frame, training from what was cut out beside cutting in each epoch, and
decoding beside PyAV's plain loop and beside the decoder alone."""
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
from multimodal_fakes.core import FakesError, read_json, root, seed_everything, sha256_file
from multimodal_fakes.data.extract import SEARCHED, extract_all, to_flac
from multimodal_fakes.data.face import face_clip
from multimodal_fakes.data.manifest import write_manifest
from multimodal_fakes.data.reader import ShardReader
from multimodal_fakes.data.shard import shard_all
from multimodal_fakes.experts.encoder import load_encoder_conf, make_encoder
from multimodal_fakes.experts.expert import Expert
from multimodal_fakes.experts.items import Items
from multimodal_fakes.experts.train import fit
from multimodal_fakes.media import read_audio, read_frames, write_clip
from multimodal_fakes.settings import Clip, Recipe

PILOT = root()/"Datasets/pilot_deepfake"
N = 100          # clips
N_VAL = 8        # of them, to validate on
SCRIPTED = 16    # of them, for the script
WORKERS = 2      # processes
ROUNDS = {"cascade": 1, "none": 3}         # first epochs of each expert that are timed, after one to warm up
CUT = dict(seconds=3.0, rate=12.5, side=96, face="cascade", rule="largest", margin=0.3)


def pilot():
    "So many clips, evenly out of all"
    clips = sorted(PILOT.glob("*/*/video.mp4"))
    if len(clips) < N:
        raise FakesError(f"{PILOT} holds {len(clips)} clips, {N} are needed: "
                         "python -m multimodal_fakes.pilots.clips Datasets")
    picks = np.linspace(0, len(clips) - 1, N).astype(int)
    return [clips[i] for i in picks]


# ---- extraction
def script(path):
    "What most scripts do: the face looked for in every frame, a file for each"
    n_frames = round(CUT["seconds"] * CUT["rate"])
    frames, _ = read_frames(path, dict(n=n_frames), SEARCHED)
    crops, _, _ = face_clip(frames, CUT["face"], CUT["side"], CUT["rule"], CUT["margin"], looks=0)
    for crop in crops:
        Image.fromarray(crop).save(io.BytesIO(), "JPEG", quality=92)
    return len(to_flac(read_audio(path)))

def our_extraction(clips):
    "Clips a second, the start of the processes included"
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as d:
        sources = {str(p): (p, None, sha256_file(p)) for p in clips}
        extract_all(sources, d, Clip(**CUT), WORKERS)
    return len(clips) / (time.perf_counter() - began)

def scripted_extraction(clips):
    "Clips a second, the start of the processes included"
    began = time.perf_counter()
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        list(pool.map(script, clips))
    return len(clips) / (time.perf_counter() - began)

def extraction(clips, about):
    "The figure of the extraction"
    name = "extraction of clips against a script that searches every frame"
    ours = our_extraction(clips)
    peer = scripted_extraction(clips[:SCRIPTED])
    data = f"{about}, {WORKERS} processes; {SCRIPTED} of them for the script"
    return [entry(name, [ours], [peer], "clips/s", data)]


# ---- training
def make_post(i, path):
    "A row of the manifest"
    place = str(path.relative_to(PILOT.parent))
    return dict(
        id=f"pilot_{i}",
        dataset="pilot_deepfake",
        split="train" if i < N - N_VAL else "val",
        video_path=place,
        audio_path=place,
        labels_raw=read_json(path.parent/"meta.json"),
        group=str(i),
        meta={"sha256": sha256_file(path)},
    )

def make_shards(home, clips, decode, face):
    "The clips through stage 3"
    (home/"Datasets").mkdir(parents=True)
    (home/"Datasets/pilot_deepfake").symlink_to(PILOT)
    posts = (make_post(i, path) for i, path in enumerate(clips))
    write_manifest(home/"Step_2", posts)
    clip = Clip(**CUT | dict(decode=decode, face=face))
    shard_all(home, home, test_share=0.0, clip=clip.model_dump())
    return ShardReader(home/"Step_3", "pilot_deepfake")

def make_recipe(modality):
    "One epoch of a small encoder, all its layers trained"
    return Recipe(
        encoder=f"small_{modality}",
        frozen_epochs=0,
        epochs=1,
        frozen_lr=1e-3,
        lr=1e-3,
        weight_decay=0.01,
        batch_size=16,
        patience=1,
        loss="cross_entropy",
        label_smoothing=0.0,
        n_workers=0,
        seed=0,
    )

def train(reader, modality):
    "Clips a second of an expert's first epoch, validation on eight included"
    seed_everything(0)
    recipe = make_recipe(modality)
    y = reader.targets("fake")
    split = reader.frame.split
    model = Expert(make_encoder(load_encoder_conf(recipe.encoder)), 2)
    train_rows = np.flatnonzero(split == "train")
    val_rows = np.flatnonzero(split == "val")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as d:
        items = Items(model.encoder, reader, train_rows, y[train_rows], recipe, 2)
        val = Items(model.encoder, reader, val_rows, y[val_rows])
        fit(model, items, val, d, 1, recipe.lr, recipe.batch_size, 1, recipe.weight_decay, 0)
    return len(reader) / (time.perf_counter() - began)

def training(folder, clips, face, about):
    "The figures of both experts; sound knows no face"
    readers = {}
    for decode in ("preextracted", "on_the_fly"):
        readers[decode] = make_shards(folder/f"{face}_{decode}", clips, decode, face)
    data = f"{about}, first epoch, batch 16, seed 0, median of {ROUNDS[face]}"
    entries = []
    for modality in ("video", "audio") if face == "none" else ("video",):
        contestants = {decode: partial(train, reader, modality) for decode, reader in readers.items()}
        rates = interleaved(contestants, ROUNDS[face])
        name = f"training small_{modality}, preextracted against on_the_fly"
        if modality == "video":
            name += f", face: {face}"
        entries.append(entry(name, rates["preextracted"], rates["on_the_fly"], "samples/s", data))
    return entries


# ---- decoding
def with_ours(clips):
    "Frames of all clips, by the function of this project"
    return sum(len(read_frames(p)[0]) for p in clips)

def with_loop(clips):
    "PyAV as its documentation shows it"
    n = 0
    for p in clips:
        with av.open(str(p)) as clip:
            frames = [f.to_ndarray(format="rgb24") for f in clip.decode(video=0)]
            n += len(np.stack(frames))
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

def sliding_ground(width, step, n):
    "A patterned ground 720 pixels high that slides by `step` pixels a frame"
    coarse = np.random.default_rng(0).integers(0, 256, (90, 220, 3), np.uint8)
    ground = coarse.repeat(8, 0).repeat(8, 1)
    for i in range(n):
        yield ground[:, step * i:step * i + width]

def large(folder):
    "Ten seconds at 1280 × 720"
    write_clip(folder/"large.mp4", sliding_ground(1280, 2, 230), 23)
    return folder/"large.mp4"

def decoding(files, data):
    "The figures of decoding, against both peers"
    contestants = {f.__name__: partial(rate, f, files) for f in (with_ours, with_loop, decoder_alone)}
    rates = interleaved(contestants, 5)
    peers = {"PyAV's plain loop": rates["with_loop"], "the decoder alone": rates["decoder_alone"]}
    about = f"{data}, one process, median of 5"
    entries = []
    for peer, theirs in peers.items():
        name = f"all frames of a video against {peer}, {data}"
        entries.append(entry(name, rates["with_ours"], theirs, "frames/s", about))
    return entries


def entry(name, ours, peer, unit, data):
    "One figure: median rates, and the median of the ratios of each round"
    ratios = [a / b for a, b in zip(ours, peer)]
    return dict(
        name=name,
        ours=round(statistics.median(ours), 1),
        peer=round(statistics.median(peer), 1),
        ratio=round(statistics.median(ratios), 3),
        unit=unit,
        higher_is_better=True,
        command="python -m bench clips",
        machine=f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        data=data,
    )


def run() -> list:
    "Extraction, training and decoding"
    clips = pilot()
    folder = Path(tempfile.mkdtemp(prefix="clips"))
    about = f"{N} clips of pilot_deepfake (seed 0), {CUT['seconds']:g} s at {CUT['rate']:g} frames/s"
    try:
        entries = extraction(clips, about)
        for face in ROUNDS:
            entries += training(folder, clips, face, about)
        entries += decoding(clips, "the same pilot clips, 120 to 240 px")
        entries += decoding([large(folder)], "10 s drawn at 1280 × 720")
    finally:
        shutil.rmtree(folder)
    return entries


def main():
    for e in run():
        print(f"{e['name']:90} {e['ours']:8,.1f} / {e['peer']:8,.1f} {e['unit']}  = {e['ratio']:.2f}")


if __name__ == "__main__":
    main()
