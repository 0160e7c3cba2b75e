"""Rehearsal of the published recipes, which are profiles: see `LAYOUTS`.

Each runs end to end as its user would run it, in a project made by `mmfakes init`, on the pilot in the layout of its
dataset, with small random encoders of the recipe's architecture in place of the pretrained ones. It shows that the
phases train what they should, that what ships is what the recipe says, and that it answers elsewhere through torch and
ONNX; the figures of such a run mean nothing. It needs a finished pilot: PILOT=… names its folder. RECIPES names a
folder to work in. `python -m bench recipes fakeddit` rehearses one."""
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers
import yaml
from PIL import Image
from safetensors.numpy import load_file

from multimodal_fakes.core import FakesError, overlay, read_json, read_yaml, root, write_json
from multimodal_fakes.detect.bundles import save
from multimodal_fakes.detect.predict import load_model
from multimodal_fakes.experts.encoder import train_tokenizer
from multimodal_fakes.fuse.fusion import load_fusion
from multimodal_fakes.record import expert_model, expert_step

PILOT = Path(os.environ.get("PILOT", root()))
HOME = Path(os.environ.get("RECIPES", root()/".cache/bench/recipes"))
ROWS, CLIPS = 120, 6        # rows of a file that are read; pairs of clips
LAYOUTS = {                 # recipe → dataset, pilot in whose layout it is
    "clickbait_distilbert": ("clickbait", "pilot_clickbait"),
    "fakeddit": ("fakeddit", "pilot_fakeddit"),
    "hateful_memes": ("hateful_memes", "pilot_hateful_memes"),
    "rakuten": ("rakuten", "pilot_rakuten"),
    "deepfake_faceforensics": ("faceforensics", "pilot_deepfake"),
}
SMALL = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96)
MARKS = dict(cls_token_id=2, bos_token_id=2, sep_token_id=3, eos_token_id=3)      # of our tokenizer
TEXT = {                    # encoder → kind of network, and what makes it small
    "distilbert": ("distilbert", dict(dim=48, n_layers=2, n_heads=2, hidden_dim=96)),
    "mdeberta": ("deberta-v2", SMALL),
    "mmbert": ("modernbert", SMALL | MARKS),
    "camembert": ("camembert", SMALL),
}
PICTURES = {                # encoder → what makes its timm network small, or the pictures where it cannot be
    "siglip": dict(arch=dict(depth=1, embed_dim=48, num_heads=2)),
    "efficientnet_b0": dict(size=64),
    "efficientnet_b3_video": dict(size=64),
}
FAST = dict(
    prepare=dict(max_rows=ROWS),
    shard=dict(clip=dict(side=64)),
    expert={m: dict(n_workers=0) for m in ("text", "vision", "video")},
    fusion=dict(epochs=2, tune_epochs=1),
    report=dict(n_boot=100),
    robustness=dict(n_posts=4, n_videos=2, severities=[5], n_boot=100),
)
AT_MOST = dict(epochs=1, frozen_epochs=2)      # of an expert; none where the recipe has none
VERSIONS = {                # recipe → note of a version, in order: settings of fusion that make it, see conf/profile
    "fakeddit": {
        "1.6": dict(strategy="concat", load_from=""),
        "1.7": dict(strategy="end_to_end", load_from=""),
        "1.8": dict(strategy="end_to_end", load_from="earlier/mm_fusion"),
    },
}


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
    for name, changes in PICTURES.items():
        change(project, name, pretrained=False, **changes)


def change(project, encoder, **values):
    path = project/f"conf/encoder/{encoder}.yaml"
    path.write_text(yaml.safe_dump(read_yaml(path) | values))


# ---- what it should come to

def check_trained(project, key, recipe):
    "Raise where a phase of an expert is not as its settings have it"
    task, name = recipe["task"], key.removeprefix(f"{recipe['task']}_")
    model, history = project/expert_model(task, name), pd.read_csv(project/expert_step(task, name)/"history.csv")
    expert = read_json(model/"expert.json")
    if expert["head"] != "trained":
        return
    phases = {"head alone": ("frozen_epochs", "frozen_lr"), "everything": ("epochs", "lr")}
    asked = [phase for phase, (epochs, _) in phases.items() if recipe[epochs]]
    expect(f"{key}: phases", history.phase.unique().tolist(), asked)
    for phase, (_, rate) in phases.items():
        rates = history.lr[history.phase == phase]
        expect(f"{key}: rates of {phase} within {recipe[rate]}", bool((rates <= recipe[rate] * 1.001).all()), True)
    expect(f"{key}: losses are numbers", bool(np.isfinite(history[["train_loss", "val_loss"]]).all(None)), True)
    head = sum(x.size for x in load_file(model/"head.safetensors").values())
    numbers = expert["parameters"]
    expect(f"{key}: trained numbers", numbers["trained"], numbers["total"] if recipe["epochs"] else head)
    first = project/f"small/{recipe['encoder']}/model.safetensors"
    if first.exists():
        before, after = load_file(first), load_file(model/"model.safetensors")
        moved = any(not np.array_equal(after[x], before[x]) for x in before.keys() & after.keys())
        expect(f"{key}: its encoder moved", moved, bool(recipe["epochs"]))


def expect(what, came, wanted):
    if came != wanted:
        raise FakesError(f"{what}: {came}, and should be {wanted}")


def check_finite(project):
    "Raise where a prediction is no number"
    for path in project.glob("Step_[45]/**/predictions.parquet"):
        logits = pd.read_parquet(path).filter(like="logit_")
        expect(f"{path}: all are numbers", bool(np.isfinite(logits).all(None)), True)


def elsewhere(bundle, post) -> dict: # runtime → answer
    "What a copy of a bundle answers in another folder, through torch and through ONNX"
    with tempfile.TemporaryDirectory() as d:
        save(bundle, Path(d)/"copy")
        answers = {r: load_model(Path(d)/"copy", runtime=r).predict(**post) for r in ("torch", "onnx")}
    off = max(abs(p - answers["onnx"]["probabilities"][c]) for c, p in answers["torch"]["probabilities"].items())
    expect(f"{bundle}: ONNX answers as torch does, within 0.05 of {off:.3f}", off <= 0.05, True)
    return answers


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
    for note, fusion in VERSIONS.get(recipe, {"": {}}).items():
        params = overlay(read_yaml(project/"params.yaml"), {"fusion": fusion})
        write_params(project, params)
        task = next(iter(params["tasks"]))
        mmfakes(project, "run")
        bundle = project/"models"/task
        if note:
            check_joint(project, bundle, params["fusion"])
            keep_version(project, bundle, list(VERSIONS[recipe]).index(note) + 1, note)
    seconds = time.perf_counter() - began
    for key, about in params["experts"].items():
        check_trained(project, key, params["expert"][about["modality"]] | about)
    check_finite(project)
    ships = load_model(bundle).bundle["ships"]
    if params["fusion"]["strategy"] != "auto" and len(params["experts"]) > 1:
        expect(f"{recipe}: what ships", ships, params["fusion"]["strategy"])
    answer = elsewhere(bundle, post_for(load_model(bundle), project))["torch"]
    return dict(seconds=seconds, ships=ships, answer=answer)


def check_joint(project, bundle, fusion):
    "Raise where the phases of the one network are not as its settings have them"
    history = pd.read_csv(project/f"Step_5/{bundle.name}/fusion/history.csv")
    history = history[history.strategy == fusion["strategy"]]
    history = history.assign(phase=history.get("phase", "fused"))      # one phase has no name
    expect("losses are numbers", bool(np.isfinite(history[["train_loss", "val_loss"]]).all(None)), True)
    rates = {"fused": fusion["lr"], "end to end": fusion["tune_lr"]}
    for phase, rows in history.groupby("phase"):
        expect(f"rates of {phase} within {rates[phase]}", bool((rows.lr <= rates[phase] * 1.001).all()), True)
    if fusion["strategy"] != "end_to_end":
        return
    expect("phases", history.phase.unique().tolist(), [*["fused"] * (not fusion["load_from"]), "end to end"])
    for name in load_fusion(bundle/"mm_fusion").read:
        own, experts = (load_file(bundle/f"{path}/model.safetensors") for path in
                        (f"mm_fusion/{name}_encoder", expert_model(bundle.name, name).name))
        moved = any(not np.array_equal(own[x], experts[x]) for x in own)
        expect(f"{name}: its encoder in the network moved", moved, True)


def keep_version(project, bundle, number, note):
    "A version in the registry of the project, loaded by its number, and laid where the next one goes on from"
    mmfakes(project, "register", bundle, "--note", note)
    task, ships = bundle.name, load_model(bundle).bundle["ships"]
    ask = f"from multimodal_fakes import load_model; print(load_model({task!r}, version={number}).bundle['ships'])"
    expect(f"version {note} ships", called(project, "-c", ask).strip(), ships)
    shutil.rmtree(project/"earlier", ignore_errors=True)
    mmfakes(project, "pull", f"{task}@{number}", "earlier")


def prepare_project(project, dataset, pilot):
    "Small encoders, few rows, one epoch each"
    if dataset == "rakuten":       # the pilot has twelve of its classes
        theirs, path = (project/f"conf/dataset/{name}.yaml" for name in (pilot, dataset))
        own = {key: value for key, value in read_yaml(theirs).items() if key in ("labels", "classes")}
        path.write_text(yaml.safe_dump(overlay(read_yaml(path), own)))
    small_encoders(project, [f"{letter} {i} of the barn and the harbour" for i, letter in enumerate("abcdefgh" * 40)])
    params = overlay(read_yaml(project/"params.yaml"), FAST)
    for recipe in (*params["expert"].values(), *params["experts"].values()):
        recipe.update({key: min(most, recipe[key]) for key, most in AT_MOST.items() if key in recipe})
    write_params(project, params)


def write_params(project, params):
    (project/"params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def post_for(detector, project):
    "A post with all that it sees"
    if "video" in detector.modalities:
        return dict(video=next((HOME/"Datasets/faceforensics").rglob("*.mp4")))
    whole = dict(text="a barn by the lake", image=Image.linear_gradient("L").convert("RGB"))
    return whole if "vision" in detector.modalities else dict(text=whole["text"])


def mmfakes(folder, *words): return called(folder, "-m", "multimodal_fakes", *words)


def called(folder, *words):
    "What Python answers in a folder"
    folder.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in words]
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise FakesError(f"python {' '.join(words)} in {folder}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
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
