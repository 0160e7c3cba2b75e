"""The sets of `python -m bench quality`: real ones and the pilots, cut to the same small size for every side.

A split is a table of posts that any program reads: id, split, y, label, group, text, and paths of its files."""
import os
import resource
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from multimodal_fakes.core import FakesError, read_json, read_jsonl, read_yaml, root, write_json
from multimodal_fakes.data.ocr import ocr_text, read_all
from multimodal_fakes.data.prepare import prepare_all
from multimodal_fakes.data.shard import grouped_split
from multimodal_fakes.media import read_audio, read_frames
from multimodal_fakes.pilots.clips import build_clips
from multimodal_fakes.pilots.pilot import PLANS, write_pilots
from multimodal_fakes.record import all_classes, load_dataset_conf, unify_labels

DATASETS = Path(os.environ.get("DATASETS", root().parent/"shared/Datasets"))
HOME = Path(os.environ.get("QUALITY", root()/".cache/quality"))
MOST = dict(train=500, val=200, test=1000)         # posts of a split
FEW_GROUPS = 300
SHARES = dict(train=0.6, val=0.15, test=0.25)       # where a set is too small for that


class Set(NamedTuple):
    "One question to one dataset"
    dataset: str
    field: str
    modalities: tuple
    changes: dict = {}          # of conf/dataset


TEXT, VISION, BOTH = ("text",), ("vision",), ("text", "vision")
SETS = {
    "clickbait": Set("clickbait", "clickbait", TEXT),
    "covid_fake_news": Set("covid_fake_news", "fake", TEXT),
    "davidson": Set("davidson", "abuse_kind", TEXT),
    "mediaeval_event": Set("mediaeval", "fake", BOTH),
    "mediaeval_image": Set("mediaeval", "fake", BOTH, dict(group=["image"])),
    "clothing": Set("clothing", "category", VISION),
    "fashion_type": Set("fashion", "type", BOTH),
    "fashion_gender": Set("fashion", "gender", BOTH),
    "fashion_season": Set("fashion", "season", BOTH),
    "fashion_usage": Set("fashion", "usage", BOTH),
    "verite": Set("verite", "fake", BOTH),                      # vectors alone are published
    "pilot_clickbait": Set("pilot_clickbait", "clickbait", TEXT),
    "pilot_fakeddit": Set("pilot_fakeddit", "fake", BOTH),
    "pilot_hateful_memes": Set("pilot_hateful_memes", "abuse_hate", BOTH),
    "pilot_rakuten": Set("pilot_rakuten", "category", BOTH),
    "pilot_deepfake": Set("pilot_deepfake", "fake", ("video", "audio")),
}


def prepared(name) -> Path:     # folder with Datasets, conf/dataset, Step_1 and Step_2
    "The dataset of a set, read and checked by the line, with what is written in its pictures"
    about = SETS[name]
    own = name if about.changes else about.dataset
    home = HOME/"prepared"/own
    if (home/"Step_2/metrics.json").exists():
        return home
    place_dataset(about.dataset, home/"Datasets")
    shutil.copytree(root()/"conf/dataset", home/"conf/dataset", dirs_exist_ok=True)
    if about.changes:
        path = home/f"conf/dataset/{about.dataset}.yaml"
        write_json(path, read_yaml(path) | about.changes)         # JSON is YAML
    prepare_all(home, home, [about.dataset], conf_folder=home/"conf/dataset")
    read_all(home, home, n_workers=1)
    return home


def place_dataset(dataset, folder):
    "Put a dataset into a folder of datasets: a link to a real one, or a pilot, which is made once"
    source = DATASETS/dataset
    if dataset.startswith("pilot_"):
        source = HOME/"Datasets"/dataset
        if not source.exists():
            make_pilot(dataset, source.parent)
    if not source.exists():
        raise FakesError(f"No folder {source}: name the folder that holds the dataset {dataset} with DATASETS=….")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder/dataset).exists():
        (folder/dataset).symlink_to(source.resolve(), target_is_directory=True)


def make_pilot(dataset, folder):
    "Write one of the pilots, as large as `make data` writes it"
    if dataset in PLANS:
        write_pilots(folder, 0, {dataset: PLANS[dataset][1]})
    else:
        build_clips(folder)


def read_posts(name) -> tuple: # table: id, split as published, label, group, text, image, video, audio; and classes
    "The labelled posts of a set"
    about, home = SETS[name], prepared(name)
    conf = load_dataset_conf(about.dataset, home/"conf/dataset")
    ocr = {row["id"]: ocr_text(row["ocr"]["lines"]) for row in read_jsonl(home/"Step_2/ocr.jsonl")}
    rows = []
    for e in read_jsonl(home/"Step_2/data_manifest.jsonl"):
        label = unify_labels(e["labels_raw"], conf).get(about.field)
        if label is not None:
            rows.append(as_post(e, label, ocr.get(e["id"]), home/"Datasets"))
    table = pd.DataFrame(rows)
    classes = all_classes(about.field, [conf], set(table.label))
    return table, [c for c in classes if c in set(table.label)]


def as_post(e, label, written, folder):
    "One row of the table of posts; the text is what stands beside the picture, then what is written in it"
    path = lambda name: str(folder/name) if name else None
    text = "\n".join(filter(None, [e["text_raw"], written]))
    return dict(
        id=e["id"], split=e["split"], label=label, group=e["group"] or e["id"],
        text=text or None, lang=e["meta"].get("lang"),
        image=path(e["image_path"]), video=path(e["video_path"]), audio=path(e["audio_path"]))


def deal(posts, seed) -> np.ndarray: # (n,) train, val, test, or left
    """Splits of the wanted size, whole groups in each; published ones are kept, and drawn from

    Where there is nothing to draw, as they are small, the first split is the published one and the others are made."""
    split = posts.split.to_numpy(object).copy()
    is_small = all((split == name).sum() <= most for name, most in MOST.items())
    if (split == "unsplit").all() or is_small and seed > 0:
        shares = wanted_shares(len(posts))
        if posts.group.nunique() < FEW_GROUPS:
            return by_chance(posts, shares, seed)
        return grouped_split(posts.label, posts.group, shares, seed)
    split[straddles(posts)] = "left"
    for name, most in MOST.items():
        own = np.flatnonzero(split == name)
        if len(own) > most:
            part = posts.iloc[own]
            shares = {"left": 1 - most / len(own), name: most / len(own)}
            split[own] = grouped_split(part.label, part.group, shares, seed)
    return split


def by_chance(posts, shares, seed) -> np.ndarray: # (n,)
    "Few groups, dealt out by chance: the best of many deals would be the same whatever the seed"
    for again in range(1000):
        split = one_deal(posts.group, shares, np.random.default_rng([seed, again]))
        came = split.value_counts(normalize=True)
        is_near = all(came.get(name, 0) > share / 2 for name, share in shares.items())
        classes, groups = posts.label.groupby(split).nunique(), posts.group.groupby(split).nunique()
        is_usable = (classes > 1).all() and (groups.reindex(list(MOST)) > 2).all()
        if is_near and is_usable and classes["train"] == posts.label.nunique():
            return split.to_numpy(object)
    raise FakesError("No deal of 1,000 gives each split half of its share, three groups and two classes, "
                     "and training all classes.")


def one_deal(group, shares, rng) -> pd.Series: # (n,)
    "One deal of whole groups, each to the split that lacks the largest part of its share"
    size, split_of = group.value_counts(normalize=True), {}
    lacks = {name: 1.0 for name in rng.permutation(list(shares))}
    for name in rng.permutation(size.index.sort_values()):
        split_of[name] = max(lacks, key=lacks.get)
        lacks[split_of[name]] -= size[name] / shares[split_of[name]]
    return group.map(split_of)


def wanted_shares(n) -> dict:
    "The share of each split, what is left out among them"
    if n * SHARES["train"] <= MOST["train"]:
        return SHARES
    test = min(MOST["test"], n - MOST["train"] - MOST["val"])
    shares = dict(train=MOST["train"] / n, val=MOST["val"] / n, test=test / n)
    left = 1 - sum(shares.values())
    return shares | dict(left=left) if left > 1 / n else shares


def straddles(posts) -> np.ndarray: # (n,)
    "Posts of train whose group is in val or test, and of val whose group is in test"
    held = posts.groupby("group").split.agg(set)
    of_group = posts.group.map(held)
    in_test, in_val = (np.array([name in splits for splits in of_group]) for name in ("test", "val"))
    split = posts.split.to_numpy()
    return (split == "train") & (in_test | in_val) | (split == "val") & in_test


def write_split(name, seed) -> Path: # a folder with posts.parquet and about.json
    "The posts of one split of a set, written once"
    folder = HOME/"splits"/name/str(seed)
    if (folder/"about.json").exists():
        return folder
    posts, classes = read_posts(name)
    posts["split"] = deal(posts, seed)
    posts = posts[posts.split.isin(list(MOST))].reset_index(drop=True)
    posts["y"] = posts.label.map({c: k for k, c in enumerate(classes)}).astype(int)
    if name == "verite":
        posts["vectors"] = clip_vectors(posts)
    if "video" in SETS[name].modalities:
        posts = posts.assign(**as_pictures(posts))
    folder.mkdir(parents=True, exist_ok=True)
    posts.to_parquet(folder/"posts.parquet")
    counts = posts.split.value_counts().to_dict()
    groups = posts.groupby("split").group.nunique().to_dict()
    about = dict(set=name, seed=seed, modalities=SETS[name].modalities, classes=classes, posts=counts, groups=groups)
    write_json(folder/"about.json", about)
    return folder


def clip_vectors(posts) -> list: # of (1536,), of the caption and then of the picture, each of length 1
    "The published vectors of VERITE's posts; no pictures are published"
    rows = posts.id.str.rsplit("_", n=1).str[-1].astype(int).to_numpy()
    sides = [np.load(DATASETS/f"verite/VERITE_clip_{side}_embeddings_ViTL14.npy")[rows] for side in ("text", "image")]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in sides]
    return list(np.hstack(unit).astype("float32"))


def as_pictures(posts) -> dict: # column → paths
    "What a reader of pictures alone can be given of a clip: the frame in its middle, and its sound as a spectrogram"
    columns = dict(frame=[], spectrogram=[])
    for post in posts.itertuples():
        folder = HOME/"pictures"/post.id
        if not (folder/"spectrogram.png").exists():
            folder.mkdir(parents=True, exist_ok=True)
            frames, _ = read_frames(post.video, dict(n=3), 224)
            Image.fromarray(frames[1]).save(folder/"frame.png")
            draw_sound(read_audio(post.audio)).save(folder/"spectrogram.png")
        for column, paths in columns.items():
            paths.append(str(folder/f"{column}.png"))
    return columns


def draw_sound(wave) -> Image.Image:
    "Loudness of 224 bands of frequencies over time, in grey"
    frames = np.lib.stride_tricks.sliding_window_view(wave, 512)[::160] * np.hanning(512)
    loud = np.log10(np.abs(np.fft.rfft(frames))[:, 1:225].T[::-1] + 1e-4)
    grey = np.uint8(255 * np.clip((loud + 4) / 6, 0, 1))
    return Image.fromarray(grey).resize((224, 224)).convert("RGB")


def read_split(name, seed) -> tuple: # posts, about
    "The posts of one split, and what is known about them"
    folder = write_split(name, seed)
    return pd.read_parquet(folder/"posts.parquet"), read_json(folder/"about.json")


def write_scores(folder, posts, p):
    "What a side says: probabilities (n, C) of posts, those of validation and test"
    table = posts[["id", "split"]].assign(**{f"p_{k}": column for k, column in enumerate(p.T)})
    folder.mkdir(parents=True, exist_ok=True)
    table[table.split.isin(["val", "test"])].to_parquet(folder/"scores.parquet")


def cpu_seconds() -> float:
    "Of this process and those that it started and that ended"
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)
