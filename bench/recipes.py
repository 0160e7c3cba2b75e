"""Rehearsal of the published recipes, which are profiles: see `LAYOUTS`.

Each runs end to end as its user would run it, in a project made by `mmfakes init`, on the pilot in the layout of its
dataset, with small random encoders of the recipe's architecture in place of the pretrained ones. It shows that the
recipe runs and its detector answers; the figures of such a run mean nothing. It needs a finished pilot: PILOT=… names
its folder. RECIPES names a folder to work in."""
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
import transformers
import yaml

from multimodal_fakes.core import FakesError, overlay, read_json, read_yaml, root, write_json
from multimodal_fakes.detect.predict import Detector
from multimodal_fakes.experts.encoder import train_tokenizer

PILOT = Path(os.environ.get("PILOT", root()))
HOME = Path(os.environ.get("RECIPES", root()/".cache/bench/recipes"))
ROWS, CLIPS = 120, 12       # rows of a file that are read; pairs of clips
POST = dict(text="a barn by the lake")
LAYOUTS = {                 # recipe → dataset, pilot in whose layout it is
    "clickbait_distilbert": ("clickbait", "pilot_clickbait"),
    "fakeddit": ("fakeddit", "pilot_fakeddit"),
    "hateful_memes": ("hateful_memes", "pilot_hateful_memes"),
    "rakuten": ("rakuten", "pilot_rakuten"),
    "deepfake_faceforensics": ("faceforensics", "pilot_deepfake"),
}
SMALL = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96)
TEXT = {                    # encoder → kind of network, and what makes it small
    "distilbert": ("distilbert", dict(dim=48, n_layers=2, n_heads=2, hidden_dim=96)),
    "mdeberta": ("deberta-v2", SMALL),
    "mmbert": ("modernbert", SMALL),
    "camembert": ("camembert", SMALL),
}
PICTURES = {                # encoder → what makes its timm network small, where it can be
    "siglip": dict(depth=1, embed_dim=48, num_heads=2),
    "efficientnet_b0": {},
    "efficientnet_b3_video": {},
}
FAST = dict(
    prepare=dict(max_rows=ROWS),
    expert={m: dict(epochs=1, frozen_epochs=1, n_workers=0) for m in ("text", "vision", "video")},
    fusion=dict(epochs=2),
    report=dict(n_boot=100),
    robustness=dict(n_posts=4, n_videos=2, severities=[5], n_boot=100),
)


# ---- datasets in their layout

def datasets(dataset, pilot, folder):
    "A pilot under the name of the dataset whose layout it has"
    source = PILOT/"Datasets"/pilot
    if not source.is_dir():
        raise FakesError(f"No folder {source}: name the folder of a finished pilot with PILOT=….")
    if dataset == "faceforensics":
        return as_faceforensics(source, folder/dataset)
    (folder/dataset).parent.mkdir(parents=True, exist_ok=True)
    if not (folder/dataset).is_symlink():
        (folder/dataset).symlink_to(source.resolve())


def as_faceforensics(source, folder):
    "Clips of the pilot as the authors' script lays out theirs: of each pair two originals and two changed ones"
    n = 0
    for split, pairs in (("train", CLIPS), ("val", CLIPS // 2), ("test", CLIPS // 2)):
        clips = sorted((source/split).iterdir())
        about = {clip: read_json(clip/"meta.json") for clip in clips}
        real, fake = ([c for c in clips if about[c]["label"] == label][:2 * pairs] for label in (0, 1))
        names = [(f"{n + 2 * i:03}", f"{n + 2 * i + 1:03}") for i in range(min(len(real), len(fake)) // 2)]
        n += 2 * len(names)
        for (a, b), originals, changed in zip(names, zip(real[::2], real[1::2]), zip(fake[::2], fake[1::2])):
            for name, clip in zip((a, b), originals):
                copy(clip, folder/f"original_sequences/youtube/c23/videos/{name}.mp4")
            for name, clip in zip((f"{a}_{b}", f"{b}_{a}"), changed):
                copy(clip, folder/f"manipulated_sequences/Deepfakes/c23/videos/{name}.mp4")
        write_json(folder/f"splits/{split}.json", names)


def copy(clip, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(clip/"video.mp4", target)


# ---- small encoders

def small_encoders(project, texts):
    "Random networks of the recipes' architectures in place of the pretrained ones"
    torch.manual_seed(0)
    for name, (kind, sizes) in TEXT.items():
        folder = project/"small"/name
        tokenizer = train_tokenizer(texts, 800)
        conf = transformers.AutoConfig.for_model(kind, vocab_size=len(tokenizer), pad_token_id=0, **sizes)
        transformers.AutoModel.from_config(conf).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        change(project, name, source=f"small/{name}")
    for name, arch in PICTURES.items():
        change(project, name, pretrained=False, arch=arch)


def change(project, encoder, **values):
    path = project/f"conf/encoder/{encoder}.yaml"
    path.write_text(yaml.safe_dump(read_yaml(path) | values))


# ---- a rehearsal

def rehearse(recipe) -> dict: # seconds, what ships, its answer
    "A recipe from its published layout to an answer of its detector"
    dataset, pilot = LAYOUTS[recipe]
    project, data = HOME/recipe, HOME/"Datasets"
    datasets(dataset, pilot, data)
    if not (project/"params.yaml").exists():
        mmfakes(HOME, "init", project, "--profile", recipe, "--datasets", data)
        shutil.copy(root()/f"conf/dataset/{pilot}.yaml", project/"conf/dataset")
        prepare_project(project, dataset, pilot)
    began = time.perf_counter()
    mmfakes(project, "run")
    seconds = time.perf_counter() - began
    task = next(iter(read_yaml(project/"params.yaml")["tasks"]))
    detector = Detector.load(project/"models"/task)
    answer = detector.predict(**post_for(detector, project))
    return dict(seconds=seconds, ships=detector.bundle["ships"], answer=answer)


def prepare_project(project, dataset, pilot):
    "Small encoders, few rows, one epoch each"
    if dataset == "rakuten":       # the pilot has twelve of its classes
        theirs, path = (project/f"conf/dataset/{name}.yaml" for name in (pilot, dataset))
        own = {key: value for key, value in read_yaml(theirs).items() if key in ("labels", "classes")}
        path.write_text(yaml.safe_dump(overlay(read_yaml(path), own)))
    small_encoders(project, [f"{letter} {i} of the barn and the harbour" for i, letter in enumerate("abcdefgh" * 40)])
    params = overlay(read_yaml(project/"params.yaml"), FAST)
    (project/"params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def post_for(detector, project):
    "A post that it can judge"
    if detector.modalities[0] != "video":
        return POST
    return dict(video=next((HOME/"Datasets/faceforensics").rglob("*.mp4")))


def mmfakes(folder, *words):
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "multimodal_fakes", *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise FakesError(f"mmfakes {' '.join(map(str, words))} in {folder}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done.stdout


def run(recipes=()):
    made = []
    for recipe in recipes or LAYOUTS:
        result = rehearse(recipe)
        said = f"ships {result['ships']}, answers {result['answer']['prediction']}"
        print(f"{recipe:24} {result['seconds']:6.0f} s  {said}", flush=True)
        made.append(dict(
            name=f"recipes, {recipe} rehearsed end to end", ours=result["seconds"], peer=None, unit="s", ratio=None,
            machine=f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores", seed=0,
            data=f"the pilot in its layout, {ROWS} rows a file or {CLIPS} pairs of clips, small random encoders"))
    return made
