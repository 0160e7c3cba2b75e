"Honest fusion: VERITE, whose texts and pictures each stand under both labels; frozen CLIP vectors, folds of whole articles, true against the rest"
import os
import platform
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from multimodal_fakes.core import FakesError, root
from multimodal_fakes.experts.features import FeatureStore, content_key
from multimodal_fakes.fuse.fusion import Conjunctive, Evidence

DATASETS = Path(os.environ.get("DATASETS", root().parent/"shared/Datasets"))
SEEDS, FOLDS = range(10), 5
KINDS = ["true", "miscaptioned", "out-of-context"]


def evidence():
    "The published vectors, put into the feature store by content and read from there; y is 0 for true, 1 for the rest; and the kind (n,)"
    folder = DATASETS/"verite"
    if not folder.is_dir(): raise FakesError(f"No folder {folder}: name the folder that holds the dataset `verite` with DATASETS=….")
    table, store = pd.read_csv(folder/"VERITE.csv"), FeatureStore(root()/".cache/features", "verite-clip-vit-l-14")
    keys = {"text": [content_key(f"{i} {c}") for i, c in enumerate(table.caption)], "vision": [content_key(f"{i} {p}") for i, p in enumerate(table.image_path)]}
    for m, name in (("text", "text"), ("vision", "image")):
        vectors, todo = np.load(folder/f"VERITE_clip_{name}_embeddings_ViTL14.npy"), store.missing(keys[m])
        store.add([keys[m][i] for i in todo], pooled=vectors[todo].astype("float32"))
    features = {m: store.pooled(k) for m, k in keys.items()}
    kind = table.label.map({k: i for i, k in enumerate(KINDS)}).to_numpy()
    frame = pd.DataFrame({"id": table.index.astype(str), "dataset": "verite", "split": "train", "group": articles(table, folder, features)})
    n = len(table)
    return Evidence(frame, (kind > 0).astype("int64"), {m: np.ones(n, bool) for m in features}, {m: np.zeros((n, 2), "float32") for m in features}, features), kind


def articles(table, folder, features):
    "The article of each row; articles with the same fact-check page, or with a caption or a picture in common, are one"
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    article = table.image_path.str.extract(r"_(\d+)\.")[0].astype(int).to_numpy()
    links = []
    for x in features.values():
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        links += [(article[i], article[j]) for i, j in zip(*np.where(np.triu(unit @ unit.T > 0.97, 1)))]
    for _, same in pd.read_csv(folder/"VERITE_articles.csv").groupby("snopes_url"):
        ids = same.id.tolist()
        if len(ids) < 5: links += [(ids[0], i) for i in ids[1:]]       # an address that stands for many articles is no page
    a, b = np.array(links).T
    size = max(article.max(), a.max(), b.max()) + 1
    return connected_components(coo_matrix((np.ones(len(a)), (a, b)), shape=(size, size)), directed=False)[1][article]


def folds(group, seed):
    "Training and test rows of each fold; articles are dealt out by chance"
    names = np.unique(group)
    fold = dict(zip(np.random.default_rng(seed).permutation(names), np.arange(len(names)) % FOLDS))
    at = np.array([fold[g] for g in group])
    return [(np.flatnonzero(at != k), np.flatnonzero(at == k)) for k in range(FOLDS)]


def columns(e, name):
    "What a logistic regression is given"
    t, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (e.features["text"], e.features["vision"]))
    return {"text": t, "image": v, "interactions": np.hstack([t, v, np.abs(t - v), t * v, (t * v).sum(1, keepdims=True)])}[name]


def logistic(e, name, train, test, y):
    "Probabilities by logistic regression; its strength, 0.001, is the best of 0.0001 to 0.01 on inner folds of articles, in every fold"
    x = columns(e, name)
    return make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=500)).fit(x[train], y[train]).predict_proba(x[test])


def conjunctive(e, train, test):
    "Probability of each class, and of each kind: which side fails"
    made = Conjunctive(e.modalities, 2).fit(e, train)
    part = e.take(test)
    z = made.log_genuine(made.inputs(part), {m: made.fitted[f"side_{m}"] for m in e.modalities}, np.ones((len(part), 2), bool))[1]
    return np.exp(made.logits(part))[:, 1], np.c_[np.zeros(len(part)), -z].argmax(1)


def one_seed(e, kind, seed):
    "AUROC of true against the rest, mean over the folds, of each model; macro-F1 and accuracy of the three kinds"
    areas, answers = {}, {"interactions": np.zeros(len(kind), int), "conjunctive": np.zeros(len(kind), int)}
    for train, test in folds(e.frame.group.to_numpy(), seed):
        scores = {n: logistic(e, n, train, test, e.y)[:, 1] for n in ("text", "image", "interactions")}
        scores["conjunctive"], answers["conjunctive"][test] = conjunctive(e, train, test)
        answers["interactions"][test] = logistic(e, "interactions", train, test, kind).argmax(1)
        for n, s in scores.items(): areas.setdefault(n, []).append(roc_auc_score(e.y[test], s))
    return {n: np.mean(a) for n, a in areas.items()}, {n: (f1_score(kind, a, average="macro"), accuracy_score(kind, a)) for n, a in answers.items()}


def bootstrap(e, ours, peer, n=1000):
    "95 % interval of the gain in AUROC when articles are drawn anew; scores out of fold, one seed"
    rng, groups = np.random.default_rng(0), e.frame.group.to_numpy()
    names, rows = np.unique(groups), {g: np.flatnonzero(groups == g) for g in np.unique(groups)}
    gains = []
    for _ in range(n):
        at = np.concatenate([rows[g] for g in rng.choice(names, len(names))])
        gains.append(roc_auc_score(e.y[at], ours[at]) - roc_auc_score(e.y[at], peer[at]))
    return np.percentile(gains, [2.5, 97.5])


def run() -> list:
    "Gain over logistic regression on interaction terms: over seeds of the folds, and over articles"
    e, kind = evidence()
    found = [one_seed(e, kind, s) for s in SEEDS]
    areas, kinds = pd.DataFrame([a for a, _ in found]), pd.DataFrame([k for _, k in found])
    gain = areas.conjunctive - areas.interactions
    half = 2.262 * gain.std() / len(gain)**0.5                           # Student's t, 9 degrees of freedom
    ours, peer = np.zeros(len(kind)), np.zeros(len(kind))
    for train, test in folds(e.frame.group.to_numpy(), 0): ours[test], peer[test] = conjunctive(e, train, test)[0], logistic(e, "interactions", train, test, e.y)[:, 1]
    low, high = bootstrap(e, ours, peer)
    print(areas.agg(["mean", "std"]).round(4).to_string())
    print(f"gain {gain.mean():+.4f} [{gain.mean() - half:+.4f}, {gain.mean() + half:+.4f}] over seeds, smallest {gain.min():+.4f}; [{low:+.4f}, {high:+.4f}] over articles")
    for n in kinds: print(f"three kinds, {n}: macro-F1 {np.mean([k[0] for k in kinds[n]]):.3f}, accuracy {np.mean([k[1] for k in kinds[n]]):.3f}")
    data = f"VERITE, {len(kind)} pairs, CLIP ViT-L/14 vectors, {FOLDS} folds of {e.frame.group.nunique()} article groups, {len(SEEDS)} seeds; gain [{low:+.3f}, {high:+.3f}] over articles"
    about = dict(higher_is_better=True, command="python -m bench verite", machine=f"{platform.machine()}, {os.cpu_count()} cores", data=data)
    entry = lambda name, a, b, unit: dict(name=name, ours=round(float(a), 4), peer=round(float(b), 4), ratio=round(float(a / b), 3), unit=unit, **about)
    return [entry("VERITE, conjunctive fusion against logistic regression on interactions", areas.conjunctive.mean(), areas.interactions.mean(), "AUROC"),
            entry("VERITE, conjunctive fusion against text alone", areas.conjunctive.mean(), areas.text.mean(), "AUROC"),
            entry("VERITE, three kinds, conjunctive fusion against logistic regression", np.mean([k[0] for k in kinds.conjunctive]), np.mean([k[0] for k in kinds.interactions]), "macro-F1")]
