"""The project's own line on one split of `python -m bench quality`, from shards to calibration, in this process.

What counts is what ships: the calibrated probabilities of the detector that the line chose."""
import shutil
from pathlib import Path

import pandas as pd

from bench.quality_choice import CHOICES, candidates_of
from bench.quality_sets import HOME, SETS, cpu_seconds, prepared, read_split, write_scores
from multimodal_fakes.core import read_jsonl, read_yaml, root, write_json, write_jsonl
from multimodal_fakes.data.shard import shard_all
from multimodal_fakes.experts.expert import load_task, train_expert
from multimodal_fakes.fuse.fusion import fuse
from multimodal_fakes.metrics import softmax
from multimodal_fakes.record import expert_name, expert_step
from multimodal_fakes.settings import Recipe
from multimodal_fakes.trust.calibrate import calibrate_all

TASK = "task"       # its name in the workspace of a split
ENCODERS = dict(text="minilm", vision="mobilenetv2", video="small_video", audio="small_audio")


def run_line(name, seed) -> Path: # folder with scores.parquet and about.json
    "The line on one split; what is finished stays"
    folder = HOME/"line"/name/str(seed)
    if (folder/"about.json").exists():
        return folder
    if name == "verite":
        return on_vectors(name, seed, folder)
    before = cpu_seconds()
    params = read_yaml(root()/"params.yaml")
    experts = entries(name, seed, params)
    task = pack(name, seed, folder, experts)
    used = dict(shard=cpu_seconds() - before)
    for key, entry in experts.items():
        before = cpu_seconds()
        train_one(folder, task, key, entry, params)
        used[key] = cpu_seconds() - before
    before = cpu_seconds()
    settings = {k: v for k, v in params["fusion"].items() if k != "per_task"}
    fused = fuse(folder, folder, task, **settings)
    calibrate_all(folder, folder, TASK, task.field, task.datasets, task.experts, task.tests)
    used["fuse and calibrate"] = cpu_seconds() - before
    write_shipped(folder, task, fused["about"], used)
    return folder


def on_vectors(name, seed, folder) -> Path:
    "Where vectors alone are published: the same linear models, neighbours, fusions and choice on them"
    before = cpu_seconds()
    posts, _ = read_split(name, seed)
    evidence, candidates = candidates_of(name, seed)
    ships = CHOICES["ships"](evidence, candidates)
    write_scores(folder, posts, softmax(candidates[ships]))
    write_json(folder/"about.json", dict(ships=ships, cpu_seconds={"all": cpu_seconds() - before}))
    return folder


def pack(name, seed, folder, experts): # Task
    "Shards of one split, as published splits; and the task of these experts"
    about, home = SETS[name], prepared(name)
    posts, split = read_split(name, seed)
    split_of = dict(zip(posts.id, posts.split))
    if not (folder/"Step_3/sums.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(home/"conf", folder/"conf", dirs_exist_ok=True)
        link(folder/"Datasets", home/"Datasets")
        link(folder/".cache/features", HOME/"line_features")
        rows = [row for row in read_jsonl(home/"Step_2/data_manifest.jsonl") if row["id"] in split_of]
        write_jsonl(folder/"Step_2/data_manifest.jsonl", [row | {"split": split_of[row["id"]]} for row in rows])
        ocr = read_jsonl(home/"Step_2/ocr.jsonl")
        write_jsonl(folder/"Step_2/ocr.jsonl", [row for row in ocr if row["id"] in split_of])
        clip = read_yaml(root()/"params.yaml")["shard"]["clip"]
        shard_all(folder, folder, split_by="published", clip=clip)
    modality_of = {expert_name(TASK, key): entry["modality"] for key, entry in experts.items()}
    return load_task(folder, TASK, about.field, [about.dataset], modality_of, [])


def link(path, target):
    "A folder that lies elsewhere"
    target.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink():
        path.symlink_to(target, target_is_directory=True)


def train_one(folder, task, key, entry, params):
    "One expert, unless it is there"
    expert = expert_name(TASK, key)
    if (folder/expert_step(TASK, expert)/"sums.json").exists():
        return
    own = {k: v for k, v in entry.items() if k not in ("task", "modality")}
    train_expert(folder, folder, task, expert, Recipe(**params["expert"][entry["modality"]] | own))


def write_shipped(folder, task, fused, used):
    "What ships says of validation and test, and what it cost"
    table = pd.read_parquet(folder/f"Step_5/{TASK}/calibrate/predictions.parquet")
    write_scores(folder, table, table[[f"prob_{c}" for c in task.classes]].to_numpy())
    done = dict(classes=task.classes, experts=task.experts, ships=fused["ships"], cpu_seconds=used)
    write_json(folder/"about.json", done | dict(strategies=fused["strategies"]))
