"""What nearest neighbours add to a text expert: 10,700 tweets about COVID-19, real or fake (Constraint 2021).

Two text experts that cost seconds, n-grams and frozen MiniLM vectors with a linear head, each alone and with the head
`neighbours` on the same frozen vectors beside it, fused by weights that are fitted out of fold. With 200 training
tweets, five draws, and with all of the published training and validation splits; judged on the published test split."""
import numpy as np
import pandas as pd

from bench.memory import entry
from bench.quality_experts import encoded
from bench.quality_sets import DATASETS
from multimodal_fakes.core import FakesError
from multimodal_fakes.experts.encoder import load_encoder_conf
from multimodal_fakes.experts.features import content_key
from multimodal_fakes.experts.fixed import NGramCounts
from multimodal_fakes.experts.linear import LogisticHead, NeighbourHead, Vectors, plan_folds, search
from multimodal_fakes.fuse.combine import Evidence, Weighted
from multimodal_fakes.metrics import paired_bootstrap, score_table, softmax
from multimodal_fakes.record import text_field

FILES = "Constraint_Train.csv", "Constraint_Val.csv", "english_test_with_labels.csv"
CLASSES = ["real", "fake"]
FEW, DRAWS, STUDENT = 200, 5, 2.776      # Student's t for 95 %, 4 degrees of freedom
PAIRS = {"n-grams": "n-grams + neighbours", "MiniLM": "MiniLM + neighbours"}
METRICS = "accuracy", "auroc"
COMMAND = "python -m bench memory covid"


def read_tweets():
    "The published splits one below the other, the test split last; how many it has"
    folder = DATASETS/"covid_fake_news"
    if not folder.is_dir():
        raise FakesError(f"No folder {folder}: name the folder that holds `covid_fake_news` with DATASETS=….")
    tables = [pd.read_csv(folder/name) for name in FILES]
    whole = pd.concat(tables, ignore_index=True)
    return whole.tweet.to_numpy(object), whole.label.map(CLASSES.index).to_numpy(), len(tables[-1])


def answers_of(head, rows, test):
    "Logits out of fold of the rows that are learned from, and of the test rows"
    folds, _ = plan_folds(head.labels[rows], rows, len(rows))
    tried = search(head, [(rows[fit], rows[judged]) for fit, judged in folds])
    view = head.see(rows, rows[:0])
    return tried.answers[rows], head.logits(head.fit(view, rows, tried.setting), view, test)


def fused(experts, y, rows):
    "Logits of the test rows by two experts, weighed by what they said out of fold"
    n_test = len(next(iter(experts.values()))[1])
    both = {name: np.concatenate(parts).astype("float32") for name, parts in experts.items()}
    number = np.arange(len(y))
    frame = pd.DataFrame({"id": number.astype(str), "dataset": "covid", "split": "val", "group": number})
    frame.loc[len(rows):, "split"] = "test"
    present = {name: np.ones(len(y), bool) for name in both}
    evidence = Evidence(frame, y, present, both, {}, modality=dict.fromkeys(both, "text"))
    made = Weighted(evidence.modality, len(CLASSES)).fit(evidence)
    weights = dict(zip(made.experts, made.fitted["weights"].round(3).tolist()))
    return made.logits(evidence.take(number[-n_test:])), weights


def ways(counts, vectors, y, rows, test):
    "Probabilities of the test tweets by each way"
    heads = {"n-grams": LogisticHead(counts, y, 2), "MiniLM": LogisticHead(vectors, y, 2)}
    heads["neighbours"] = NeighbourHead(vectors, y, 2)
    said = {name: answers_of(head, rows, test) for name, head in heads.items()}
    z = {name: test_logits for name, (_, test_logits) in said.items()}
    for alone, both in PAIRS.items():
        z[both], weights = fused({name: said[name] for name in (alone, "neighbours")}, y[np.r_[rows, test]], rows)
        print(f"  {both}: weights {weights}")
    return {name: softmax(logits) for name, logits in z.items()}


def gains(y, probs, size):
    "A row for each pair and metric: without, with, and the paired interval of the gain over test tweets"
    rows = []
    for alone, both in PAIRS.items():
        for metric in METRICS:
            without, with_them = (score_table(y, probs[name])[metric] for name in (alone, both))
            _, low, high = paired_bootstrap(y, probs[both], probs[alone], metric, n_boot=1000)
            near = score_table(y, probs["neighbours"])[metric]
            rows.append(dict(size=size, way=both, metric=metric, without=without, with_them=with_them, near=near,
                             low=low, high=high))
    return rows


def in_words(table, size):
    "A line and an entry for each pair and metric of one size"
    entries = []
    for (way, metric), own in table[table["size"] == size].groupby(["way", "metric"], sort=False):
        gain = own.with_them - own.without
        low, high = own.low.iloc[0], own.high.iloc[0]
        drawn = "all of them, interval over test tweets"
        if len(own) > 1:
            half = STUDENT * gain.std() / len(own)**0.5
            low, high, drawn = gain.mean() - half, gain.mean() + half, f"{len(own)} draws, interval over draws"
        said = f"gain {gain.mean():+.4f} [{low:+.4f}, {high:+.4f}], {size:,} training tweets, {drawn}"
        with_them, without, near = (own[column].mean() for column in ("with_them", "without", "near"))
        print(f"{way}: {metric} {with_them:.4f} after {without:.4f} (neighbours alone {near:.4f}); {said}")
        data = f"covid_fake_news, 2,140 test tweets; {said}"
        what = f"COVID tweets, {size:,} to learn from, {way}"
        entries.append(entry(f"{what}, {metric}", with_them, metric, data, COMMAND, peer=without))
    return entries


def run(part_args=()) -> list:
    "Gain of neighbours beside each text expert, with few examples and with all"
    texts, y, n_test = read_tweets()
    test, known = np.arange(len(y) - n_test, len(y)), np.arange(len(y) - n_test)
    vectors = Vectors(encoded("minilm", texts, [content_key(t) for t in texts], text_field))
    counts = NGramCounts([text_field(t) for t in texts], load_encoder_conf("tfidf"))
    rows = []
    for draw in range(DRAWS):
        some = np.sort(np.random.default_rng(draw).choice(known, FEW, replace=False))
        rows += gains(y[test], ways(counts, vectors, y, some, test), FEW)
    rows += gains(y[test], ways(counts, vectors, y, known, test), len(known))
    table = pd.DataFrame(rows)
    return [made for size in (FEW, len(known)) for made in in_words(table, size)]
