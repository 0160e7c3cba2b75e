"""The project's own line on one split of `python -m bench quality`, from shards to calibration, in this process.

What counts is what ships: the calibrated probabilities of the detector that the line chose."""
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import yaml

from bench.quality_choice import candidates_of, ships
from bench.quality_sets import DATASETS, HOME, SETS, cpu_seconds, prepared, read_split, write_scores
from multimodal_fakes import quality
from multimodal_fakes.core import read_jsonl, read_yaml, root, write_json
from multimodal_fakes.data.manifest import write_manifest
from multimodal_fakes.data.shard import shard_all
from multimodal_fakes.experts.expert import load_task, train_expert
from multimodal_fakes.fuse.fusion import fuse
from multimodal_fakes.metrics import softmax
from multimodal_fakes.record import expert_name, expert_step
from multimodal_fakes.settings import Recipe
from multimodal_fakes.trust.calibrate import calibrate_all

TASK = "task"       # its name in the workspace of a split
QUALITY, MINUTES = "balanced", 30       # that are planned for; of processor time, as the machine may be shared


def run_line(name, seed) -> Path: # folder with scores.parquet and about.json
    "The line on one split; what is finished stays"
    folder = HOME/"line"/name/str(seed)
    if (folder/"about.json").exists():
        return folder
    if name == "verite":
        return on_vectors(name, seed, folder)
    before, used = cpu_seconds(), {}
    pack(name, seed, folder)
    params = planned(name, folder)
    task = task_of(name, folder, params["experts"])
    used["shard and plan"] = cpu_seconds() - before
    for key, entry in params["experts"].items():
        before = cpu_seconds()
        train_one(folder, task, key, entry, params)
        used[key] = cpu_seconds() - before
    before = cpu_seconds()
    fused = fuse(folder, folder, task, **fusion_settings(params))
    calibrate_all(folder, folder, TASK, task.field, task.datasets, task.experts, task.tests)
    used["fuse and calibrate"] = cpu_seconds() - before
    write_shipped(folder, task, fused["about"], used)
    return folder


def planned(name, folder) -> dict: # params.yaml with the experts that were chosen
    "What `quality: balanced` chooses for a split"
    params = read_yaml(root()/"params.yaml")
    params["fusion"].pop("per_task", None)
    about = SETS[name]
    own = dict(field=about.field, datasets=[about.dataset], modalities=list(about.modalities), tests=[])
    params |= dict(tasks={TASK: own}, experts={}, quality=QUALITY, minutes=MINUTES)
    path = folder/"params.yaml"
    if not path.exists():
        path.write_text(yaml.safe_dump(params, sort_keys=False))      # a setting a line: it is edited
    quality.time = SimpleNamespace(perf_counter=time.process_time)
    quality.make_plan(folder)
    return read_yaml(path)


def fusion_settings(params) -> dict:
    "The section `fusion`, with what the plan narrows"
    own = {k: v for k, v in params["fusion"].items() if k != "per_task"}
    return own | (params["fusion"].get("per_task") or {}).get(TASK, {})


def on_vectors(name, seed, folder) -> Path:
    "Where vectors alone are published: the same linear models, neighbours, fusions and choice on them"
    before = cpu_seconds()
    posts, _ = read_split(name, seed)
    candidates = candidates_of(name, seed)
    chosen = ships(candidates)
    write_scores(folder, posts, softmax(candidates.logits[chosen]))
    write_json(folder/"about.json", dict(ships=chosen, cpu_seconds={"all": cpu_seconds() - before}))
    return folder


def pack(name, seed, folder):
    "Shards of one split, as published splits"
    if (folder/"Step_3/sums.json").exists():
        return
    home, (posts, _) = prepared(name), read_split(name, seed)
    split_of = dict(zip(posts.id, posts.split))
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(root()/"conf", folder/"conf", dirs_exist_ok=True)
    shutil.copytree(home/"conf/dataset", folder/"conf/dataset", dirs_exist_ok=True)
    links = {"Datasets": home/"Datasets", "weights": DATASETS.parent/"weights", ".cache/features": HOME/"line_features"}
    for path, target in links.items():
        link(folder/path, target)
    link(root()/"weights", DATASETS.parent/"weights")       # where an encoder looks for them
    rows = [row for row in read_jsonl(home/"Step_2/data_manifest.jsonl") if row["id"] in split_of]
    ocr = [row for row in read_jsonl(home/"Step_2/ocr.jsonl") if row["id"] in split_of]
    write_manifest(folder/"Step_2", [row | {"split": split_of[row["id"]]} for row in rows], ocr)
    clip = read_yaml(root()/"params.yaml")["shard"]["clip"]
    about = SETS[name]
    own = dict(field=about.field, datasets=[about.dataset], modalities=list(about.modalities), tests=[])
    shard_all(folder, folder, split_by="published", clip=clip, tasks={TASK: own})


def task_of(name, folder, experts):
    "The task of some entries of `experts`"
    modality_of = {expert_name(TASK, key): entry["modality"] for key, entry in experts.items()}
    return load_task(folder, TASK, SETS[name].field, [SETS[name].dataset], modality_of, [])


def link(path, target):
    "A folder that lies elsewhere"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        target.mkdir(parents=True, exist_ok=True)
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
    write_json(folder/"about.json", done | dict(choice=fused["choice"]))
