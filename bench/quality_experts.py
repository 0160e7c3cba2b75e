"""Experts that cost seconds, over the splits of `python -m bench quality`: what a choice is made of, many times over.

Each is a linear model, or the nearest neighbours, on vectors that nothing trains; each post is encoded once."""
import warnings
from functools import cache

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import FeatureUnion

from bench.quality_sets import DATASETS, HOME, SETS, read_split
from multimodal_fakes.experts.encoder import load_encoder_conf, make_encoder
from multimodal_fakes.experts.features import FeatureStore, content_key, encoder_key
from multimodal_fakes.media import open_image, read_audio, read_frames
from multimodal_fakes.record import text_field

STRENGTHS = (0.1, 1, 10, 100)      # C of logistic regression; the best on validation is taken
NEIGHBOURS = (5, 15, 50)           # likewise
BATCH = 32                         # posts encoded at once
SIDE = 16                          # tiles of a thumbnail


# ---- vectors
def tfidf(texts, train):
    "TF-IDF of words (1-2) and characters (2-5), its vocabulary from training (n, D) sparse"
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=r"(?u)\b\w+\b")
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=3)
    both = FeatureUnion([("word", words), ("char", characters)])
    return both.fit(texts[train]).transform(texts).tocsr()


@cache
def encoder_of(name):
    "An encoder as it came, and the store of its vectors"
    conf = load_encoder_conf(name)
    if conf.weights:
        conf = conf.model_copy(update={"weights": str(DATASETS.parent/conf.weights)})
    encoder = make_encoder(conf).eval()
    return encoder, FeatureStore(HOME/"features", encoder_key(encoder))


@torch.inference_mode()
def encoded(name, samples, keys, read) -> np.ndarray: # (n, D) float32
    "Vectors of a frozen encoder; `read` makes of a sample what it takes"
    encoder, store = encoder_of(name)
    todo = sorted(store.missing(keys), key=lambda i: len(samples[i]))       # of texts: alike in length together
    for start in range(0, len(todo), BATCH):
        some = todo[start:start + BATCH]
        batch = encoder.preprocess([read(samples[i]) for i in some])
        store.add([keys[i] for i in some], pooled=encoder.encode(batch).pooled.float().numpy())
    return store.pooled(keys)


def stored(name, samples, keys, summary) -> np.ndarray: # (n, D) float32
    "What a function makes of each sample, kept by content"
    store = FeatureStore(HOME/"features", name)
    todo = store.missing(keys)
    if len(todo):
        store.add([keys[i] for i in todo], pooled=np.stack([summary(samples[i]) for i in todo]).astype("float32"))
    return store.pooled(keys)


def file_keys(paths):
    "The content of each file"
    return [content_key(open(path, "rb").read()) for path in paths]


def thumbnail(path):
    "A picture as the colours of a few tiles"
    pixels = torch.from_numpy(np.asarray(open_image(path).convert("RGB"), dtype="float32") / 255).permute(2, 0, 1)
    return torch.nn.functional.adaptive_avg_pool2d(pixels, SIDE).flatten().numpy()


def tiles(path):
    "A video as the colours of a few tiles, their mean over time and how much they change"
    frames, _ = read_frames(path, dict(n=24), 96)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    small = torch.nn.functional.adaptive_avg_pool2d(pixels, 8).flatten(1)
    return torch.cat([small.mean(0), 10 * small.diff(dim=0).abs().mean(0)]).numpy()


def bands(path):
    "A sound as the loudness of each band of frequencies, its mean over time and its spread"
    wave = read_audio(path)
    frames = np.lib.stride_tricks.sliding_window_view(wave, 400)[::160] * np.hanning(400)
    power = np.abs(np.fft.rfft(frames, 512)) ** 2
    edges = np.unique(np.geomspace(1, 257, 65).astype(int))
    loud = np.log(np.add.reduceat(power[:, :257], edges[:-1], axis=1) + 1e-6)
    return np.r_[loud.mean(0), loud.std(0)]


# ---- models: each returns log probabilities of every post that has the modality
def log_probs(model, x, k):
    "Of every class; one that training lacks has next to nothing"
    z = np.full((x.shape[0], k), np.log(1e-9))
    z[:, model.classes_] = np.log(model.predict_proba(x) + 1e-9)
    return z


def linear(x, y, train, val, k):
    "Logistic regression, the best of its strengths on validation"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        models = [LogisticRegression(C=c, max_iter=300).fit(x[train], y[train]) for c in STRENGTHS]
    scores = [log_probs(model, x, k) for model in models]
    return min(scores, key=lambda z: log_loss(y[val], softmax(z[val]), labels=range(k)))


def neighbours(x, y, train, val, k):
    "Shares of the classes among the nearest of training by cosine, each once more in the shares of training"
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    near = unit @ unit[train].T
    at = np.flatnonzero(train)
    near[at, np.arange(len(at))] = -2           # a post is no neighbour of its own
    order = np.argsort(-near, axis=1)[:, :max(NEIGHBOURS)]
    prior = np.bincount(y[train], minlength=k) / train.sum()
    hits = np.eye(k)[y[train]][order]           # (n, most, k)
    scores = [np.log((hits[:, :n].sum(1) + prior) / (n + 1) + 1e-9) for n in NEIGHBOURS]
    return min(scores, key=lambda z: log_loss(y[val], softmax(z[val]), labels=range(k)))


def softmax(z):
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


# ---- the experts of a split
def vectors_of(name, posts) -> dict: # expert → modality, rows (n,) bool, vectors of these rows, models
    "What the experts of a set see"
    if name == "verite":
        return sides_of(posts)
    seen, modalities = {}, SETS[name].modalities
    if "text" in modalities:
        has, texts = posts.text.notna().to_numpy(), posts.text.dropna().to_numpy(object)
        train = (posts.split == "train").to_numpy()[has]
        seen["text_linear"] = ("text", has, tfidf(texts, train), linear)
        minilm = encoded("minilm", texts, [content_key(t) for t in texts], text_field)
        seen |= {"text_minilm": ("text", has, minilm, linear), "text_near": ("text", has, minilm, neighbours)}
    if "vision" in modalities:
        has, paths = posts.image.notna().to_numpy(), posts.image.dropna().to_list()
        keys = file_keys(paths)
        seen["vision_linear"] = ("vision", has, stored("thumbnails", paths, keys, thumbnail), linear)
        mobilenet = encoded("mobilenetv2", paths, keys, open_image)
        seen["vision_mobilenet"] = ("vision", has, mobilenet, linear)
        seen["vision_near"] = ("vision", has, mobilenet, neighbours)
    for modality, summary in (("video", tiles), ("audio", bands)):
        if modality in modalities:
            has, paths = posts[modality].notna().to_numpy(), posts[modality].dropna().to_list()
            x = stored(summary.__name__, paths, file_keys(paths), summary)
            seen[f"{modality}_linear"] = (modality, has, x, linear)
            seen[f"{modality}_near"] = (modality, has, x, neighbours)
    return seen


def sides_of(posts):
    "The published vectors of VERITE, of the caption and of the picture"
    both, every = np.stack(posts.vectors.to_list()), np.ones(len(posts), bool)
    seen = {}
    for modality, x in zip(("text", "vision"), np.split(both, 2, axis=1)):
        seen |= {f"{modality}_clip": (modality, every, x, linear), f"{modality}_near": (modality, every, x, neighbours)}
    return seen


def scores_of(name, seed) -> tuple: # posts, about, expert → modality, has (n,), logits (n, k), vectors (n, D) or none
    "The experts of a split, fitted once and kept"
    posts, about = read_split(name, seed)
    k, y = len(about["classes"]), posts.y.to_numpy()
    folder = HOME/"experts"/name/str(seed)
    seen, experts = vectors_of(name, posts), {}
    for expert, (modality, has, x, model) in seen.items():
        path = folder/f"{expert}.npy"
        if not path.exists():
            train, val = ((posts.split == s).to_numpy()[has] for s in ("train", "val"))
            folder.mkdir(parents=True, exist_ok=True)
            np.save(path, model(x, y[has], train, val, k).astype("float32"))
        prior = np.log(np.bincount(y[posts.split == "train"], minlength=k) / (posts.split == "train").sum() + 1e-9)
        logits = np.tile(prior.astype("float32"), (len(posts), 1))
        logits[has] = np.load(path)
        experts[expert] = (modality, has, logits, None if hasattr(x, "tocsr") else filled(x, has))
    return posts, about, experts


def filled(x, has):
    "Vectors of every post, zeros where it lacks the modality"
    whole = np.zeros((len(has), x.shape[1]), "float32")
    whole[has] = x
    return whole
