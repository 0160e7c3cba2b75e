"""What the choice of `python -m bench quality` is worth: candidates of each split, what ships, what was best.

Candidates are kept by the code that made them, so that a rule is tried in seconds."""
import tempfile
from typing import NamedTuple

import numpy as np

from bench.quality_experts import scores_of
from bench.quality_sets import HOME
from multimodal_fakes.core import digest, read_json, root, write_json
from multimodal_fakes.fuse.choice import choose, effective_groups, posts_of
from multimodal_fakes.fuse.combine import Evidence
from multimodal_fakes.fuse.fusion import to_try, train_strategies
from multimodal_fakes.metrics import paired_bootstrap, score_table, softmax

NETWORKS = ["concat", "interaction"]                  # of those that learn from vectors, one of each kind
RULES = ["mean", "vote", "weighted", "logistic", "boosted", "conjunctive"]
SETTINGS = dict(seed=0)
HALF = "told by half of test"


def evidence_of(posts, about, experts) -> Evidence:
    "What the experts of a split wrote, as fusion takes it"
    frame = posts[["id", "split", "group"]].assign(dataset=about["set"])
    features = {name: x for name, (_, _, _, x) in experts.items() if x is not None}
    return Evidence(
        frame, posts.y.to_numpy(),
        present={name: has for name, (_, has, _, _) in experts.items()},
        logits={name: z for name, (_, _, z, _) in experts.items()},
        features=features,
        modality={name: modality for name, (modality, *_) in experts.items()})


class Candidates(NamedTuple):
    "Experts and strategies of a split"
    evidence: Evidence
    classes: list
    logits: dict        # candidate → (n, C); on validation out of fold where it was fitted there
    asks: dict          # strategy → experts


def candidates_of(name, seed) -> Candidates:
    "Fitted once and kept"
    posts, about, experts = scores_of(name, seed)
    evidence = evidence_of(posts, about, experts)
    path = HOME/"candidates"/code()/name/f"{seed}.npz"
    asked = path.with_suffix(".json")
    if not asked.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        logits, asks = fitted(name, seed, evidence, len(about["classes"]))
        np.savez(path, **evidence.logits, **logits)
        write_json(asked, asks)
    return Candidates(evidence, about["classes"], dict(np.load(path)), read_json(asked))


def fitted(name, seed, evidence, n_classes) -> tuple: # {strategy: logits (n, C)}, {strategy: experts}
    "Every strategy that the split can teach"
    asked = [*RULES, *(NETWORKS if len(evidence.encoded) > 1 else [])]
    names = to_try(asked, "auto", evidence.experts, n_classes)
    with tempfile.TemporaryDirectory() as folder:
        made, logits, _, left_out = train_strategies(evidence, names, SETTINGS, folder)
    for strategy, why in left_out.items():
        print(f"{name} {seed}: {strategy} is left out: {why}")
    return logits, {strategy: list(fit.experts) for strategy, fit in made.items()}


def code() -> str:
    "Name of the code that fuses, and of this list of strategies"
    files = sorted((root()/"multimodal_fakes/fuse").glob("*.py"))
    return digest([f.read_text() for f in files if f.stem != "choice"], RULES, NETWORKS, SETTINGS)[:12]


def ships(candidates) -> str:
    "What the line ships"
    val = candidates.evidence.rows("val")
    z = {name: logits[val] for name, logits in candidates.logits.items()}
    return choose(z, posts_of(candidates.evidence, candidates.classes), candidates.asks).ships


def gated(candidates) -> str:
    """The rule before this one: the strategy of the lowest validation loss where the interval of what it gains in
    accuracy over the most accurate expert lies above zero, else that expert"""
    evidence = candidates.evidence
    val = evidence.rows("val")
    y, groups = evidence.y[val], evidence.frame["group"].to_numpy()[val]
    z = {name: logits[val] for name, logits in candidates.logits.items()}
    loss = {name: score_table(y, softmax(scores))["nll"] for name, scores in z.items()}
    right = {name: (scores.argmax(1) == y).mean() for name, scores in z.items()}
    expert = max(evidence.experts, key=right.get)
    tried = [name for name in z if name not in evidence.experts]
    if not tried:
        return expert
    strategy = min(tried, key=loss.get)
    ours, theirs = (z[name].argmax(1) for name in (strategy, expert))
    _, low, _ = paired_bootstrap(y, ours, theirs, "accuracy", groups)
    return strategy if low > 0 else expert


def study(name, seed) -> dict:
    "What each rule ships on a split, and how right every candidate is on test"
    candidates = candidates_of(name, seed)
    evidence, logits = candidates.evidence, candidates.logits
    test = evidence.rows("test")
    y, groups = evidence.y[test], evidence.frame["group"].to_numpy()[test]
    tables = {c: score_table(y, softmax(z[test])) for c, z in logits.items()}
    shipped = {rule: decide(candidates) for rule, decide in CHOICES.items()}
    best = max(tables, key=lambda c: tables[c]["accuracy"])
    regret = {rule: tables[best]["accuracy"] - tables[c]["accuracy"] for rule, c in shipped.items()}
    right = {c: z[test].argmax(1) == y for c, z in logits.items()}
    regret[HALF] = half_told(right, groups, seed)
    told_by = effective_groups(evidence.frame["group"].to_numpy()[evidence.rows("val")])
    about = dict(set=name, seed=seed, validation_groups=told_by, best=best, shipped=shipped, regret=regret)
    about["scores"] = {c: {m: t[m] for m in ("accuracy", "macro_f1", "nll")} for c, t in tables.items()}
    if "weighted" in logits:
        about["weighted_over_mean"] = over_mean(y, groups, logits, test)
    return about


def half_told(right, groups, seed, draws=50) -> float:
    """Regret on one half of the test groups where the best of the other half is taken, mean over draws: what hindsight
    owes to chance alone, as no rule knows as much"""
    rng, names, table = np.random.default_rng(seed), np.unique(groups), np.stack(list(right.values()), 1)
    regrets = []
    for _ in range(draws):
        one = np.isin(groups, rng.permutation(names)[:len(names) // 2])
        told, judged = table[one].mean(0), table[~one].mean(0)
        regrets.append(judged.max() - judged[told.argmax()])
    return float(np.mean(regrets))


def over_mean(y, groups, logits, test) -> dict: # metric → (difference, low, high)
    "What the weighted mean gains over the plain one, each with its interval"
    ours, plain = (softmax(logits[c][test]) for c in ("weighted", "mean"))
    return {m: paired_bootstrap(y, ours, plain, m, groups) for m in ("accuracy", "macro_f1", "nll")}


CHOICES = {"ships": ships, "gated": gated}
