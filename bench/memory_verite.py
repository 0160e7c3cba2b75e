"""Does retrieval add to fusion? VERITE's pairs, with the folds of `python -m bench verite`: no article in two of them.

Neighbours are asked alone, beside the mean of two linear experts, and beside the conjunctive fusion, whose probability
stands in the place of the mean. k, reach and caution are chosen on scores out of fold within the training articles."""
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from bench.memory import entry
from bench.verite import FOLDS, SEEDS, STUDENT, bootstrap, conjunctive, evidence, folds, logistic
from multimodal_fakes.fuse.combine import Mean, Neighbours, to_logits

PAIRS = {"mean": "mean + neighbours", "conjunctive": "conjunctive + neighbours"}     # without, with
COMMAND = "python -m bench memory verite"
INNER = 1000      # added to the seed of a fold: seeds of the folds within it


def by_side(e, train, test):
    "What a linear expert of each side says of the test rows, as logits"
    sides = {"text": "text", "vision": "image"}
    return {m: to_logits(logistic(e, name, train, test, e.y)) for m, name in sides.items()}


def by_conjunction(e, train, test):
    "What the conjunctive fusion says of them, as if each side said it"
    p = conjunctive(e, train, test)[0]
    return dict.fromkeys(e.modalities, to_logits(np.stack([1 - p, p], 1)))


def nothing(e, train, test):
    "Experts that do not know: neighbours answer alone"
    return dict.fromkeys(e.modalities, np.zeros((len(test), 2), "float32"))


def with_scores(e, train, test, says, seed):
    "The evidence with scores of experts that did not see what they judge, and its splits"
    logits = {m: np.zeros((len(e), 2), "float32") for m in e.modalities}
    parts = [(train[rest], train[held]) for rest, held in folds(e.frame.group.to_numpy()[train], INNER + seed)]
    for learned, judged in [*parts, (train, test)]:
        for m, z in says(e, learned, judged).items():
            logits[m][judged] = z
    split = np.full(len(e), "test", object)
    split[train] = "train"
    return e._but(logits=logits, frame=e.frame.assign(split=split))


def fused(kind, e, train, test):
    "Probability of the rest, for the test rows"
    z = kind(e.modality, 2).fit(e, train).logits(e.take(test))
    return z[:, 1] - z[:, 0]


def scores_of(e, train, test, seed):
    "What each way says of the test rows"
    sides, conjunction, mute = (
        with_scores(e, train, test, says, seed) for says in (by_side, by_conjunction, nothing))
    return {
        "neighbours alone": fused(Neighbours, mute, train, test),
        "mean": fused(Mean, sides, train, test),
        "mean + neighbours": fused(Neighbours, sides, train, test),
        "conjunctive": fused(Mean, conjunction, train, test),
        "conjunctive + neighbours": fused(Neighbours, conjunction, train, test),
    }


def one_seed(e, seed):
    "AUROC of each way, mean over the folds; its scores out of fold"
    areas, whole = {}, {}
    for train, test in folds(e.frame.group.to_numpy(), seed):
        for name, score in scores_of(e, train, test, seed).items():
            areas.setdefault(name, []).append(roc_auc_score(e.y[test], score))
            whole.setdefault(name, np.zeros(len(e)))[test] = score
    return {name: np.mean(of_folds) for name, of_folds in areas.items()}, whole


def log_loss(score, y):
    "Mean over the posts; a score is the logit of the rest"
    return np.logaddexp(0, np.where(y == 1, -score, score)).mean()


def run(part_args=()) -> list:
    "Gain of neighbours beside each fusion, with its intervals over seeds and over articles"
    e, kind = evidence()
    drawn = [one_seed(e, seed) for seed in SEEDS]
    areas, first = pd.DataFrame([means for means, _ in drawn]), drawn[0][1]
    loss = pd.DataFrame([{name: log_loss(score, e.y) for name, score in scores.items()} for _, scores in drawn]).mean()
    print(areas.agg(["mean", "std"]).T.assign(log_loss=loss).round(4).to_string())
    entries = []
    for without, with_them in PAIRS.items():
        gain = areas[with_them] - areas[without]
        half = STUDENT * gain.std() / len(gain)**0.5
        low, high = bootstrap(e, first[with_them], first[without])
        said = (f"gain {gain.mean():+.4f} [{gain.mean() - half:+.4f}, {gain.mean() + half:+.4f}] over seeds, "
                f"[{low:+.4f}, {high:+.4f}] over articles (seed 0); log-loss {loss[with_them]:.4f} after "
                f"{loss[without]:.4f}")
        print(f"{with_them}: {said}")
        data = (f"VERITE, {len(kind)} pairs, CLIP ViT-L/14 vectors, {FOLDS} folds of {e.frame.group.nunique()} article "
                f"groups, {len(areas)} seeds; {said}")
        ours, peer = areas[[with_them, without]].mean()
        entries.append(entry(f"VERITE, neighbours beside {without}", ours, "AUROC", data, COMMAND, peer=peer))
    return entries
