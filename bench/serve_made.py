"A detector of the Fakeddit recipe with random weights, saved as a bundle, and posts to ask it about"
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

from multimodal_fakes.calibrate import make_bundle
from multimodal_fakes.calibrators import PatternCalibrator
from multimodal_fakes.core import Recipe, digest, read_json, seed_everything, write_json
from multimodal_fakes.decisions import Conformal
from multimodal_fakes.encoder import load_encoder_conf, make_encoder
from multimodal_fakes.expert import Expert, save_expert
from multimodal_fakes.fusion import Concat, Evidence
from multimodal_fakes.metrics import softmax
from multimodal_fakes.ood import Familiar
from multimodal_fakes.record import Task, text_field

TASK, CLASSES, SEED = "fakeddit_recipe", ["real", "fake"], 0
VOCABULARY, LAYERS, KNOWN, READ = 30_522, 6, 192, 4000      # DistilBERT's word pieces and layers; posts from which the detector learns what is usual; titles that the tokenizer is trained on


def make_texts(n, seed=SEED):
    "Titles of 3 to 60 words, 11 in the middle, as those of Fakeddit: words of syllables, a few of them frequent"
    rng = np.random.default_rng(seed)
    syllables = [c + v for c in "bcdfghklmnprstvw" for v in ("a", "e", "i", "o", "u", "an", "er", "is", "ou")]
    language = np.random.default_rng(SEED)           # the same words, whatever is said with them
    words = ["".join(language.choice(syllables, language.integers(1, 4))) for _ in range(8000)]
    lengths = np.clip(np.round(np.exp(rng.normal(np.log(11), 0.55, n))), 3, 60).astype(int)
    ranks = rng.zipf(1.3, lengths.sum()) % len(words)
    starts = np.r_[0, lengths.cumsum()]
    return [" ".join(words[r] for r in ranks[a:b]) for a, b in zip(starts, starts[1:])]

def draw_photo(rng):
    "JPEG of 480 to 960 pixels a side, about as many bytes as a photograph of that size: large shapes, small ones, grain"
    w, h = (int(v) for v in rng.integers(480, 961, 2))
    image = Image.fromarray(rng.integers(0, 256, (h // 40, w // 40, 3), dtype=np.uint8)).resize((w, h), Image.Resampling.BICUBIC)
    d = ImageDraw.Draw(image)
    for _ in range(40):
        x, y, r = int(rng.integers(0, w)), int(rng.integers(0, h)), int(rng.integers(4, 90))
        d.ellipse((x, y, x + r, y + r), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    grain = rng.normal(0, 9, (h, w, 1))
    out = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(image.filter(ImageFilter.SMOOTH)) + grain, 0, 255).astype("uint8")).save(out, "JPEG", quality=85)
    return out.getvalue()

def make_posts(n, seed=SEED):
    "Posts with text and picture; no picture twice"
    rng = np.random.default_rng(seed)
    return [dict(text=t, image=draw_photo(rng)) for t in make_texts(n, seed)]


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

def make_fusion(features):
    "Concat → 256 → 128 → 2, its answers spread about an even chance: with weights as they are drawn all posts would get nearly the same"
    n, modalities = len(features["text"]), list(features)
    present = {m: np.ones(n, bool) for m in modalities}
    evidence = Evidence(None, np.zeros(n, int), present, {m: np.zeros((n, 2), "float32") for m in modalities}, features)
    fusion = Concat(modalities, len(CLASSES), hidden=[256, 128], dropout=[0.4, 0.2])
    fusion.build({m: x.shape[1] for m, x in features.items()}, []).standardise(evidence)
    odds = np.diff(fusion.logits(evidence))[:, 0]
    with torch.no_grad():
        last = fusion.out[-1]
        last.weight.mul_(2 / odds.std()); last.bias.copy_(torch.tensor([odds.mean(), -odds.mean()]) / odds.std() + last.bias * 2 / odds.std())
    return fusion, softmax(fusion.logits(evidence)), present

def make_detector(models, layers=LAYERS):
    "models/fakeddit_recipe, by the project's own classes"
    seed_everything(SEED)
    folder, posts = Path(models)/TASK, make_posts(KNOWN, SEED + 1)
    experts, features = make_experts([p["text"] for p in posts], [p["image"] for p in posts], layers)
    fusion, probs, present = make_fusion(features)
    task, y = Task(name=TASK, field="fake", datasets=["made"], modalities=list(experts), classes=CLASSES), np.random.default_rng(SEED).integers(0, 2, KNOWN)
    recipe = dict(frozen_epochs=1, epochs=1, frozen_lr=1e-4, lr=5e-5, weight_decay=0.01, batch_size=32, patience=1, loss="cross_entropy", label_smoothing=0.0, n_workers=0, seed=SEED)
    for m, e in experts.items(): save_expert(e, folder/f"{m}_expert", task, Recipe(encoder=e.encoder.conf.name, **recipe), {"version": 1})
    fusion.save(folder/"mm_fusion")
    Familiar().fit(features, present, y, np.where(np.arange(KNOWN) % 3, "train", "val")).save(folder)
    decisions = dict(abstention=dict(below=None), sets={"all": dict(conformal=Conformal().fit(probs, y).to_dict())})
    protocol = dict(task=TASK, field="fake", classes=CLASSES, ships="concat", clip=None, hash=digest(TASK, layers, SEED), versions=read_json(folder/"text_expert/expert.json")["versions"])
    identity = PatternCalibrator.from_dict(dict(all=dict(name="none")))
    write_json(folder/"detector.json", make_bundle(protocol, list(experts), identity, 0.5, "best_f1", decisions, [0.5, 0.5], dict(ocr=None, lang=[None])))
    return folder
