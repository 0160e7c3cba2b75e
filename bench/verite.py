"""Honest fusion: VERITE, whose texts and pictures each stand under both labels.

Frozen CLIP vectors, folds of whole articles, true against the rest."""
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
STUDENT = 2.262                             # Student's t for 95 %, 9 degrees of freedom
KINDS = ["true", "miscaptioned", "out-of-context"]
FILES = {"text": "text", "vision": "image"}                 # modality → its name in the published files
MODELS = ("text", "image", "interactions")                  # of logistic regression


def read_features(table, folder):
    "The published vectors, put into the feature store by content and read from there"
    store = FeatureStore(root()/".cache/features", "verite-clip-vit-l-14")
    keys = {
        "text": [content_key(f"{i} {caption}") for i, caption in enumerate(table.caption)],
        "vision": [content_key(f"{i} {path}") for i, path in enumerate(table.image_path)],
    }
    for m, name in FILES.items():
        vectors = np.load(folder/f"VERITE_clip_{name}_embeddings_ViTL14.npy")
        todo = store.missing(keys[m])
        store.add([keys[m][i] for i in todo], pooled=vectors[todo].astype("float32"))
    return {m: store.pooled(k) for m, k in keys.items()}


def evidence():
    "The published vectors as fusion takes them; y is 0 for true, 1 for the rest; and the kind (n,)"
    folder = DATASETS/"verite"
    if not folder.is_dir():
        raise FakesError(f"No folder {folder}: name the folder that holds the dataset `verite` with DATASETS=….")
    table = pd.read_csv(folder/"VERITE.csv")
    features = read_features(table, folder)
    kind = table.label.map({name: i for i, name in enumerate(KINDS)}).to_numpy()
    frame = pd.DataFrame({
        "id": table.index.astype(str),
        "dataset": "verite",
        "split": "train",
        "group": articles(table, folder, features),
    })
    n = len(table)
    y = (kind > 0).astype("int64")
    present = {m: np.ones(n, bool) for m in features}
    logits = {m: np.zeros((n, 2), "float32") for m in features}
    return Evidence(frame, y, present, logits, features), kind


def unit_rows(x):
    "Each row with length 1"
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def similar(x):
    "Pairs of rows whose cosine is over 0.97"
    unit = unit_rows(x)
    return zip(*np.where(np.triu(unit @ unit.T > 0.97, 1)))


def articles(table, folder, features):
    """The article of each row.

    Articles with the same fact-check page, or with a caption or a picture in common, are one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    article = table.image_path.str.extract(r"_(\d+)\.")[0].astype(int).to_numpy()
    links = []
    for x in features.values():
        links += [(article[i], article[j]) for i, j in similar(x)]
    for _, same in pd.read_csv(folder/"VERITE_articles.csv").groupby("snopes_url"):
        ids = same.id.tolist()
        if len(ids) < 5:                    # an address that stands for many articles is no page
            links += [(ids[0], i) for i in ids[1:]]
    a, b = np.array(links).T
    size = max(article.max(), a.max(), b.max()) + 1
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    return component[article]


def folds(group, seed):
    "Training and test rows of each fold; articles are dealt out by chance"
    names = np.unique(group)
    shuffled = np.random.default_rng(seed).permutation(names)
    fold = dict(zip(shuffled, np.arange(len(names)) % FOLDS))
    at = np.array([fold[g] for g in group])
    return [(np.flatnonzero(at != k), np.flatnonzero(at == k)) for k in range(FOLDS)]


def columns(e, name):
    "What a logistic regression is given"
    t = unit_rows(e.features["text"][:])
    v = unit_rows(e.features["vision"][:])
    if name == "text":
        return t
    if name == "image":
        return v
    cosine = (t * v).sum(1, keepdims=True)
    return np.hstack([t, v, np.abs(t - v), t * v, cosine])


def logistic(e, name, train, test, y):
    """Probabilities by logistic regression.

    Its strength, 0.001, is the best of 0.0001 to 0.01 on inner folds of articles, in every fold."""
    x = columns(e, name)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=500))
    return model.fit(x[train], y[train]).predict_proba(x[test])


def conjunctive(e, train, test):
    "Probability of each class, and of each kind: which side fails"
    model = Conjunctive(e.modalities, 2).fit(e, train)
    part, every = e.take(test), np.s_[:]
    sides, seen = [model.fitted[f"side_{m}"] for m in e.modalities], model.inputs(part)
    z = seen.z(every, seen.read(every), sides)
    p_rest = np.exp(model.logits(part))[:, 1]
    kinds = np.c_[np.zeros(len(part)), -z].argmax(1)
    return p_rest, kinds


def one_seed(e, kind, seed):
    "AUROC of true against the rest, mean over the folds, of each model; macro-F1 and accuracy of the three kinds"
    areas = {name: [] for name in (*MODELS, "conjunctive")}
    answers = {name: np.zeros(len(kind), int) for name in ("interactions", "conjunctive")}
    for train, test in folds(e.frame.group.to_numpy(), seed):
        scores = {name: logistic(e, name, train, test, e.y)[:, 1] for name in MODELS}
        scores["conjunctive"], answers["conjunctive"][test] = conjunctive(e, train, test)
        answers["interactions"][test] = logistic(e, "interactions", train, test, kind).argmax(1)
        for name, score in scores.items():
            areas[name].append(roc_auc_score(e.y[test], score))
    means = {name: np.mean(of_folds) for name, of_folds in areas.items()}
    kinds = {}
    for name, answer in answers.items():
        kinds[name] = (f1_score(kind, answer, average="macro"), accuracy_score(kind, answer))
    return means, kinds


def out_of_fold(e):
    "Probability of the rest for every row, of both models, by folds of seed 0"
    ours = np.zeros(len(e.y))
    peer = np.zeros(len(e.y))
    for train, test in folds(e.frame.group.to_numpy(), 0):
        ours[test] = conjunctive(e, train, test)[0]
        peer[test] = logistic(e, "interactions", train, test, e.y)[:, 1]
    return ours, peer


def bootstrap(e, ours, peer, n=1000):
    "95 % interval of the gain in AUROC when articles are drawn anew; scores out of fold, one seed"
    rng = np.random.default_rng(0)
    groups = e.frame.group.to_numpy()
    names = np.unique(groups)
    rows = {g: np.flatnonzero(groups == g) for g in names}
    gains = []
    for _ in range(n):
        drawn = rng.choice(names, len(names))
        at = np.concatenate([rows[g] for g in drawn])
        y = e.y[at]
        gains.append(roc_auc_score(y, ours[at]) - roc_auc_score(y, peer[at]))
    return np.percentile(gains, [2.5, 97.5])


def entry(name, ours, peer, unit, data):
    "One figure as results.json keeps it"
    return dict(
        name=name,
        ours=round(float(ours), 4),
        peer=round(float(peer), 4),
        ratio=round(float(ours / peer), 3),
        unit=unit,
        higher_is_better=True,
        command="python -m bench verite",
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        data=data,
    )


def print_gains(areas, low, high):
    "Areas of all models, and the gain with both its intervals"
    gain = areas.conjunctive - areas.interactions
    mean = gain.mean()
    half = STUDENT * gain.std() / len(gain)**0.5
    print(areas.agg(["mean", "std"]).round(4).to_string())
    over_seeds = f"[{mean - half:+.4f}, {mean + half:+.4f}] over seeds, smallest {gain.min():+.4f}"
    print(f"gain {mean:+.4f} {over_seeds}; [{low:+.4f}, {high:+.4f}] over articles")


def run() -> list:
    "Gain over logistic regression on interaction terms: over seeds of the folds, and over articles"
    e, kind = evidence()
    of_seeds = [one_seed(e, kind, seed) for seed in SEEDS]
    areas = pd.DataFrame([means for means, _ in of_seeds])
    kinds = [of_kinds for _, of_kinds in of_seeds]
    low, high = bootstrap(e, *out_of_fold(e))
    print_gains(areas, low, high)
    f1 = {}
    for name in kinds[0]:
        f1[name], accuracy = np.mean([of_kinds[name] for of_kinds in kinds], axis=0)
        print(f"three kinds, {name}: macro-F1 {f1[name]:.3f}, accuracy {accuracy:.3f}")
    data = (f"VERITE, {len(kind)} pairs, CLIP ViT-L/14 vectors, {FOLDS} folds of {e.frame.group.nunique()} "
            f"article groups, {len(SEEDS)} seeds; gain [{low:+.3f}, {high:+.3f}] over articles")
    ours = areas.conjunctive.mean()
    fusion = "VERITE, conjunctive fusion against"
    of_kinds = "VERITE, three kinds, conjunctive fusion against logistic regression"
    return [
        entry(f"{fusion} logistic regression on interactions", ours, areas.interactions.mean(), "AUROC", data),
        entry(f"{fusion} text alone", ours, areas.text.mean(), "AUROC", data),
        entry(of_kinds, f1["conjunctive"], f1["interactions"], "macro-F1", data),
    ]
