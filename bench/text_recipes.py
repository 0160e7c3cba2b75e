"How right a text expert gets with more than one plain epoch: recipes beside TF-IDF with logistic regression"
import os
import platform

import numpy as np

from bench.text_training import headlines, ours
from multimodal_fakes.experts.baselines import linear_baseline, tfidf

RECIPES = {
    "one epoch": dict(epochs=1, lr=1e-4),
    "two epochs, averaged weights, layer-wise rates": dict(epochs=2, lr=1e-4, ema=0.995, layer_decay=0.9),
}


def run() -> list:
    "Accuracy of each recipe on the same test headlines"
    texts, y, test = headlines()
    split = np.where(test, "test", "train").astype(object)
    split[np.random.default_rng(1).choice(np.flatnonzero(~test), (~test).sum() // 20, replace=False)] = "val"
    logits = linear_baseline(tfidf(texts, split == "train"), y, split, np.ones(len(y), bool), 2)
    peer = float((logits[test].argmax(1) == y[test]).mean())
    about = dict(peer=round(peer, 5), unit="accuracy", higher_is_better=True, command="python -m bench text_recipes", machine=f"{platform.machine()}, {os.cpu_count()} cores",
                 data=f"clickbait, {(~test).sum():,} headlines to train on, {test.sum():,} to test, by chance, seed 0, all-MiniLM-L6-v2")
    found = {name: ours(texts, y, test, **changes)["accuracy"] for name, changes in RECIPES.items()}
    return [dict(name=f"text accuracy, {name}, against TF-IDF", ours=round(a, 5), ratio=round(a / peer, 4), **about) for name, a in found.items()]
