"A detector of the Fakeddit recipe with random weights, saved as a bundle; and a small one of videos"
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from bench.serve_posts import SEED, TASK, make_posts, make_texts
from multimodal_fakes.core import digest, read_sums, seed_everything, write_json, write_sums
from multimodal_fakes.data.manifest import write_manifest
from multimodal_fakes.detect.predict import Detector, write_golden
from multimodal_fakes.experts.encoder import load_encoder_conf, make_encoder
from multimodal_fakes.experts.expert import Expert, save_expert
from multimodal_fakes.fuse.combine import Mean, save_fusion
from multimodal_fakes.fuse.fusion import Concat, Evidence
from multimodal_fakes.media import write_clip
from multimodal_fakes.metrics import softmax
from multimodal_fakes.record import Task, expert_model, text_field
from multimodal_fakes.settings import Clip, Recipe
from multimodal_fakes.trust.calibrate import Decision, make_bundle, write_bundle
from multimodal_fakes.trust.calibrators import PatternCalibrator
from multimodal_fakes.trust.decisions import Conformal
from multimodal_fakes.trust.ood import Familiar

CLASSES = ["real", "fake"]
VOCABULARY = 30_522     # word pieces of DistilBERT
LAYERS = 6              # of DistilBERT
KNOWN = 1152            # posts: half to train on, half for the gates, so that one label in 576 is less than 0.3 %
READ = 4000             # titles that the tokenizer is trained on
RECIPE = dict(
    frozen_epochs=1,
    epochs=1,
    frozen_lr=1e-4,
    lr=5e-5,
    weight_decay=0.01,
    batch_size=32,
    patience=1,
    loss="cross_entropy",
    label_smoothing=0.0,
    n_workers=0,
    seed=SEED,
)


def settle(encoder, batches):
    """Statistics of BatchNorm as the pictures have them.

    With those of a fresh network the activations of random weights vanish, layer by layer."""
    for module in encoder.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None        # the plain mean over all batches
    encoder.train()
    with torch.no_grad():
        for batch in batches:
            encoder.encode(batch)
    return encoder.eval()

def make_encoders(layers):
    "Both encoders at their published width, with random weights"
    arch = dict(model_type="distilbert", n_layers=layers, vocab_size=VOCABULARY, max_position_embeddings=512)
    text = load_encoder_conf("distilbert")
    text = text.model_copy(update=dict(source=None, vocab_size=VOCABULARY, arch=arch))
    vision = load_encoder_conf("efficientnet_b0").model_copy(update=dict(pretrained=False))
    titles = make_texts(READ, SEED + 2)
    return {"text": make_encoder(text, titles), "vision": make_encoder(vision)}

def encode_all(encoder, batches):
    "Features of all batches"
    return torch.cat([encoder.encode(batch).pooled for batch in batches]).numpy()

def make_experts(texts, pictures, layers):
    "Both experts, with heads 768 → 512 → 512 and 1280 → 512 → 512, and the features of some posts"
    encoders = make_encoders(layers)
    samples = {"text": [text_field(text) for text in texts], "vision": pictures}
    starts = range(0, len(texts), 32)
    batches = {}
    for m, encoder in encoders.items():
        batches[m] = [encoder.preprocess(samples[m][i:i + 32]) for i in starts]
    settle(encoders["vision"], batches["vision"])
    experts = {m: Expert(encoder, len(CLASSES)).eval() for m, encoder in encoders.items()}
    with torch.no_grad():
        features = {m: encode_all(encoder, batches[m]) for m, encoder in encoders.items()}
    return experts, features

def make_fusion(features, y, splits):
    """Concat → 256 → 128 → 2, trained on what the encoders give.

    With weights as they are drawn all posts would get nearly the same answer, which no gate could judge."""
    n = len(y)
    modalities = list(features)
    present = {m: np.ones(n, bool) for m in modalities}
    logits = {m: np.zeros((n, 2), "float32") for m in modalities}
    frame = pd.DataFrame(dict(split=splits, dataset="made", group=np.arange(n)))
    evidence = Evidence(frame, y, present, logits, features)
    layers = dict(hidden=[256, 128], dropout=[0.4, 0.2])
    fusion = Concat(modalities, len(CLASSES), **layers, epochs=12, seed=SEED).fit(evidence)
    return fusion, softmax(fusion.logits(evidence)), present

def split_posts(n):
    "The second half is for tests; of the first, three in four train and the others validate"
    number = np.arange(n)
    known = np.where(number % 8 < 6, "train", "val")
    return np.where(number >= n // 2, "test", known)

def conformal_decisions(probs, y):
    "Decisions without abstention, with conformal sets"
    conformal = Conformal().fit(probs, y).to_dict()
    return dict(abstention=dict(below=None), sets={"all": dict(conformal=conformal)})

def no_calibrator():
    "One that leaves probabilities as they are"
    return PatternCalibrator.from_dict(dict(all=dict(name="none")))

def save_parts(folder, name, experts, fusion):
    "Experts and fusion in a folder; returns their task"
    task = Task(name=name, field="fake", datasets=["made"], experts={m: m for m in experts}, classes=CLASSES)
    for m, expert in experts.items():
        recipe = Recipe(encoder=expert.encoder.conf.name, **RECIPE)
        save_expert(expert, folder/expert_model(name, m).name, task, m, recipe, {"version": 1})
    save_fusion(fusion, folder/"mm_fusion")
    return task

def write_made(folder, task, ships, clip, decisions, familiar):
    "detector.json and its sums"
    protocol = dict(
        task=task.name,
        field="fake",
        classes=CLASSES,
        positive="fake",
        multi_label=False,
        asks=task.experts,
        ships=ships,
        clip=clip,
        hash=digest(task.name, SEED),
        versions={},
    )
    decision = Decision(0.5, {})
    text = dict(ocr=None, lang=["en"])
    bundle = make_bundle(protocol, no_calibrator(), decision, "best_f1", decisions, [0.5, 0.5], text)
    write_bundle(bundle, familiar, folder, folder)

def make_detector(models, posts, layers=LAYERS):
    "models/fakeddit_recipe, by the project's own classes: both encoders as they are drawn, the fusion trained"
    seed_everything(SEED)
    folder = Path(models)/TASK
    y = np.arange(len(posts)) % 2
    splits = split_posts(len(posts))
    experts, features = make_experts([p["text"] for p in posts], [p["image"] for p in posts], layers)
    fusion, probs, present = make_fusion(features, y, splits)
    task = save_parts(folder, TASK, experts, fusion)
    familiar = Familiar().fit(features, present, y, splits)
    val = splits == "val"
    decisions = conformal_decisions(probs[val], y[val])
    write_made(folder, task, "concat", None, decisions, familiar)
    return folder, y

DATASET = dict(
    name="made",
    title="made here",
    licence="Apache-2.0",
    obtain="made here",
    files=[dict(path="rows.csv")],
    labels=dict(fake=dict(column="label", map={0: "real", 1: "fake"})),
)

def make_row(i, post, label, split):
    "A row of the manifest"
    return dict(
        id=f"made_{i}",
        dataset="made",
        split=split,
        text_raw=post["text"],
        image_path=f"made/{i}.jpg",
        labels_raw=dict(label=int(label)),
        group=str(i),
        meta=dict(lang="en"),
    )

def make_project(home, n=KNOWN, layers=LAYERS):
    "A project with posts, their shards, the detector, and its graphs as the stage export chooses them"
    from multimodal_fakes.data.shard import shard_all
    from multimodal_fakes.detect.export import export_all
    home = Path(home)
    posts = make_posts(n, SEED + 1)
    folder, y = make_detector(home/"models", posts, layers)
    for place in ("Datasets/made", "conf/dataset"):
        (home/place).mkdir(parents=True, exist_ok=True)
    (home/"conf/dataset/made.yaml").write_text(yaml.safe_dump(DATASET))
    rows = []
    for i, post in enumerate(posts):
        (home/f"Datasets/made/{i}.jpg").write_bytes(post["image"])
        rows.append(make_row(i, post, y[i], "train" if i < n // 2 else "test"))
    write_manifest(home/"Step_2", rows)
    shard_all(home, home, val_share=0.0, test_share=0.0)
    return folder, export_all(home, home, TASK, ["made"])


def make_small(modality):
    "A small encoder with random weights"
    return make_encoder(load_encoder_conf(f"small_{modality}"))

def familiar_of_noise(experts, n):
    "Labels (n,), and what is familiar where features are noise"
    y = np.arange(n) % 2
    splits = np.where(np.arange(n) % 3, "train", "val")
    rng = np.random.default_rng(SEED)
    features = {m: rng.normal(size=(n, expert.dim)).astype("float32") for m, expert in experts.items()}
    present = {m: np.ones(n, bool) for m in experts}
    return y, Familiar().fit(features, present, y, splits)

def write_graphs(folder):
    "Graphs and golden answers of the detector of videos"
    from multimodal_fakes.detect.export import networks, write_float
    detector = Detector.load(folder, "torch", device="cpu")
    looks = [detector.look(dict(video=draw_clip(k))) for k in range(2)]
    samples = [sample for sample, _ in looks]
    quality = [q for _, q in looks]
    write_float(networks(detector, samples, quality), folder/"onnx", None)
    about = dict(format=1, protocol=detector.bundle["protocol"], bundle=read_sums(folder)["digest"])
    write_json(folder/"onnx/export.json", about)
    write_sums(folder/"onnx", "export")
    write_golden([detector, Detector.load(folder, "onnx", device="cpu")], folder)

def make_clips(home, n=12):
    """models/clips, a detector of video and sound with random weights: so that damaged videos reach a decoder.

    Its graphs are written, and not judged: nothing is measured of it."""
    seed_everything(SEED)
    folder = Path(home)/"models/clips"
    modalities = ["video", "audio"]
    experts = {m: Expert(make_small(m), len(CLASSES)).eval() for m in modalities}
    y, familiar = familiar_of_noise(experts, n)
    clip = Clip(seconds=3.0, rate=12.5, side=96, face="none", rule="largest", margin=0.3).model_dump()
    decisions = conformal_decisions(np.full((n, 2), 0.5), y)
    task = save_parts(folder, "clips", experts, Mean(modalities, len(CLASSES)))
    write_made(folder, task, "mean", clip, decisions, familiar)
    write_graphs(folder)
    return folder

def sliding_noise(seed):
    "Frames of noise that slides"
    coarse = np.random.default_rng(seed).integers(0, 256, (24, 60, 3), np.uint8)
    ground = coarse.repeat(8, 0).repeat(8, 1)
    for t in range(60):
        yield ground[:, 3 * t:3 * t + 256]

def draw_clip(seed):
    "Four seconds of noise that slides, with a hum, as MP4"
    hum = 0.2 * np.sin(np.arange(64_000) / 10).astype("float32")
    with tempfile.TemporaryDirectory() as d:
        path = Path(d)/"a.mp4"
        write_clip(path, sliding_noise(seed), 15, hum)
        return path.read_bytes()
