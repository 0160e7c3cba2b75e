"How right a text expert gets with more than one plain epoch: recipes beside TF-IDF with logistic regression"
import os
import platform

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

from bench.text_training import headlines, ours

RECIPES = {
    "one epoch": dict(epochs=1, lr=1e-4),
    "two epochs, averaged weights, layer-wise rates": dict(epochs=2, lr=1e-4, ema=0.995, layer_decay=0.9),
}


def make_split(test):
    "Name of the split of each headline; one in twenty of those to train on validates"
    split = np.where(test, "test", "train").astype(object)
    train = np.flatnonzero(~test)
    val = np.random.default_rng(1).choice(train, len(train) // 20, replace=False)
    split[val] = "val"
    return split


def baseline_accuracy(texts, y, test):
    "Accuracy of TF-IDF with logistic regression"
    split = make_split(test)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=3)
    model = make_pipeline(make_union(words, characters), LogisticRegression(C=10, max_iter=1000))
    train = split == "train"
    return float((model.fit(texts[train], y[train]).predict(texts[test]) == y[test]).mean())


def run() -> list:
    "Accuracy of each recipe on the same test headlines"
    texts, y, test = headlines()
    peer = baseline_accuracy(texts, y, test)
    about = dict(
        peer=round(peer, 5),
        unit="accuracy",
        higher_is_better=True,
        command="python -m bench text_recipes",
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        data=f"clickbait, {(~test).sum():,} headlines to train on, {test.sum():,} to test, by chance, seed 0, "
             "all-MiniLM-L6-v2",
    )
    entries = []
    for name, changes in RECIPES.items():
        accuracy = ours(texts, y, test, **changes)["accuracy"]
        title = f"text accuracy, {name}, against TF-IDF"
        entries.append(dict(name=title, ours=round(accuracy, 5), ratio=round(accuracy / peer, 4), **about))
    return entries
