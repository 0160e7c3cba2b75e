"A detector of the Fakeddit recipe with random weights, saved as a bundle; and a small one of videos"
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from bench.serve_posts import SEED, TASK, make_posts, make_texts
from multimodal_fakes.core import digest, read_json, seed_everything, write_json, write_jsonl
from multimodal_fakes.detect.predict import Detector, write_golden
from multimodal_fakes.experts.encoder import load_encoder_conf, make_encoder
from multimodal_fakes.experts.expert import Expert, save_expert
from multimodal_fakes.fuse.combine import Mean
from multimodal_fakes.fuse.fusion import Concat, Evidence
from multimodal_fakes.media import write_clip
from multimodal_fakes.metrics import softmax
from multimodal_fakes.record import Task, text_field
from multimodal_fakes.settings import Clip, Recipe
from multimodal_fakes.trust.calibrate import make_bundle
from multimodal_fakes.trust.calibrators import PatternCalibrator
from multimodal_fakes.trust.decisions import Conformal
from multimodal_fakes.trust.ood import Familiar

CLASSES = ["real", "fake"]
VOCABULARY, LAYERS, KNOWN, READ = 30_522, 6, 1152, 4000     # DistilBERT's word pieces and layers; posts of its project, half of them to train on, half for the gates, so that one label in 576 is less than the 0.3 % allowed; titles that the tokenizer is trained on


def settle(encoder, batches):
    "Statistics of BatchNorm as the pictures have them: with those of a fresh network the activations of random weights vanish, layer by layer"
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for m in norms: m.reset_running_stats(); m.momentum = None        # the plain mean over all batches
    encoder.train()
    with torch.no_grad():
        for batch in batches: encoder.encode(batch)
    return encoder.eval()

def make_experts(texts, pictures, layers):
    "Both encoders at their published width with heads 768 → 512 → 512 and 1280 → 512 → 512, and the features of some posts"
    text = load_encoder_conf("distilbert").model_copy(update=dict(source=None, vocab_size=VOCABULARY, arch=dict(model_type="distilbert", n_layers=layers, vocab_size=VOCABULARY, max_position_embeddings=512)))
    vision = load_encoder_conf("efficientnet_b0").model_copy(update=dict(pretrained=False))
    encoders = {"text": make_encoder(text, make_texts(READ, SEED + 2)), "vision": make_encoder(vision)}
    samples = {"text": [text_field(t) for t in texts], "vision": pictures}
    batches = {m: [e.preprocess(samples[m][i:i + 32]) for i in range(0, len(texts), 32)] for m, e in encoders.items()}
    settle(encoders["vision"], batches["vision"])
    experts = {m: Expert(e, len(CLASSES)).eval() for m, e in encoders.items()}
    with torch.no_grad(): features = {m: torch.cat([encoders[m].encode(b).pooled for b in batches[m]]).numpy() for m in experts}
    return experts, features

def make_fusion(features, y, splits):
    "Concat → 256 → 128 → 2, trained on what the encoders give: with weights as they are drawn all posts would get nearly the same answer, which no gate could judge"
    n, modalities = len(y), list(features)
    present = {m: np.ones(n, bool) for m in modalities}
    evidence = Evidence(pd.DataFrame(dict(split=splits, dataset="made")), y, present, {m: np.zeros((n, 2), "float32") for m in modalities}, features)
    fusion = Concat(modalities, len(CLASSES), hidden=[256, 128], dropout=[0.4, 0.2], epochs=12, seed=SEED).fit(evidence)
    return fusion, softmax(fusion.logits(evidence)), present

def make_detector(models, posts, layers=LAYERS):
    "models/fakeddit_recipe, by the project's own classes: both encoders as they are drawn, the fusion trained"
    seed_everything(SEED)
    folder, y, half = Path(models)/TASK, np.arange(len(posts)) % 2, len(posts) // 2
    splits = np.where(np.arange(len(posts)) >= half, "test", np.where(np.arange(len(posts)) % 8 < 6, "train", "val"))
    experts, features = make_experts([p["text"] for p in posts], [p["image"] for p in posts], layers)
    fusion, probs, present = make_fusion(features, y, splits)
    task = Task(name=TASK, field="fake", datasets=["made"], modalities=list(experts), classes=CLASSES)
    recipe = dict(frozen_epochs=1, epochs=1, frozen_lr=1e-4, lr=5e-5, weight_decay=0.01, batch_size=32, patience=1, loss="cross_entropy", label_smoothing=0.0, n_workers=0, seed=SEED)
    for m, e in experts.items(): save_expert(e, folder/f"{m}_expert", task, Recipe(encoder=e.encoder.conf.name, **recipe), {"version": 1})
    fusion.save(folder/"mm_fusion")
    Familiar().fit(features, present, y, splits).save(folder)
    decisions = dict(abstention=dict(below=None), sets={"all": dict(conformal=Conformal().fit(probs[splits == "val"], y[splits == "val"]).to_dict())})
    protocol = dict(task=TASK, field="fake", classes=CLASSES, ships="concat", clip=None, hash=digest(TASK, layers, SEED), versions=read_json(folder/"text_expert/expert.json")["versions"])
    identity = PatternCalibrator.from_dict(dict(all=dict(name="none")))
    write_json(folder/"detector.json", make_bundle(protocol, list(experts), identity, 0.5, "best_f1", decisions, [0.5, 0.5], dict(ocr=None, lang=["en"])))
    return folder, y

def make_project(home, n=KNOWN, layers=LAYERS):
    "A project with posts, their shards, the detector, and its graphs as the stage export chooses them"
    from multimodal_fakes.data.shard import shard_all
    from multimodal_fakes.detect.export import export_all
    home, posts = Path(home), make_posts(n, SEED + 1)
    folder, y = make_detector(home/"models", posts, layers)
    for d in ("Datasets/made", "conf/dataset"): (home/d).mkdir(parents=True, exist_ok=True)
    (home/"conf/dataset/made.yaml").write_text(yaml.safe_dump(dict(name="made", title="made here", licence="Apache-2.0", obtain="made here", files=[dict(path="rows.csv")], labels=dict(fake=dict(column="label", map={0: "real", 1: "fake"})))))
    for i, p in enumerate(posts): (home/f"Datasets/made/{i}.jpg").write_bytes(p["image"])
    write_jsonl(home/"Step_2/data_manifest.jsonl", [dict(id=f"made_{i}", dataset="made", split="train" if i < n // 2 else "test", text_raw=p["text"], image_path=f"made/{i}.jpg", labels_raw=dict(label=int(y[i])), group=str(i), meta=dict(lang="en")) for i, p in enumerate(posts)])
    write_jsonl(home/"Step_2/ocr.jsonl", [])
    shard_all(home, home, val_share=0.0, test_share=0.0)
    return folder, export_all(home, home, TASK, ["made"])


def make_clips(home, n=12):
    "models/clips, a detector of video and sound with random weights: so that damaged videos reach a decoder. Its graphs are written, and not judged: nothing is measured of it"
    from multimodal_fakes.detect.export import networks, write_float
    seed_everything(SEED)
    folder, modalities, encoder = Path(home)/"models/clips", ["video", "audio"], lambda m: make_encoder(load_encoder_conf(f"small_{m}"))
    task = Task(name="clips", field="fake", datasets=["made"], modalities=modalities, classes=CLASSES)
    recipe = dict(frozen_epochs=1, epochs=1, frozen_lr=1e-4, lr=5e-5, weight_decay=0.01, batch_size=32, patience=1, loss="cross_entropy", label_smoothing=0.0, n_workers=0, seed=SEED)
    for m in modalities: save_expert(Expert(encoder(m), len(CLASSES)).eval(), folder/f"{m}_expert", task, Recipe(encoder=f"small_{m}", **recipe), {"version": 1})
    Mean(modalities, len(CLASSES)).save(folder/"mm_fusion")
    y, clip = np.arange(n) % 2, Clip(seconds=3.0, rate=12.5, side=96, face="none", rule="largest", margin=0.3).model_dump()
    rng, dims = np.random.default_rng(SEED), {m: encoder(m).dim for m in modalities}
    Familiar().fit({m: rng.normal(size=(n, d)).astype("float32") for m, d in dims.items()}, {m: np.ones(n, bool) for m in modalities}, y, np.where(np.arange(n) % 3, "train", "val")).save(folder)
    decisions = dict(abstention=dict(below=None), sets={"all": dict(conformal=Conformal().fit(np.full((n, 2), 0.5), y).to_dict())})
    protocol = dict(task="clips", field="fake", classes=CLASSES, ships="mean", clip=clip, hash=digest("clips", SEED), versions=read_json(folder/"video_expert/expert.json")["versions"])
    write_json(folder/"detector.json", make_bundle(protocol, modalities, PatternCalibrator.from_dict(dict(all=dict(name="none"))), 0.5, "best_f1", decisions, [0.5, 0.5], dict(ocr=None, lang=[None])))
    detector = Detector.load(folder)
    samples, quality = zip(*(detector.look(dict(video=draw_clip(k))) for k in range(2)))
    write_float(networks(detector, list(samples), list(quality)), folder/"onnx", None)
    write_json(folder/"onnx/export.json", dict(format=1, protocol=detector.bundle["protocol"]))
    write_golden(detector, folder)
    return folder

def draw_clip(seed):
    "Four seconds of noise that slides, with a hum, as MP4"
    ground = np.random.default_rng(seed).integers(0, 256, (24, 60, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    with tempfile.TemporaryDirectory() as d:
        write_clip(Path(d)/"a.mp4", (ground[:, 3 * t:3 * t + 256] for t in range(60)), 15, 0.2 * np.sin(np.arange(64_000) / 10).astype("float32"))
        return (Path(d)/"a.mp4").read_bytes()
