"""Does what ships keep up with the linear baseline and with AutoGluon MultiModal, and what does the choice regret?

`python -m bench quality --sets clickbait fashion_type --splits 0 1 --parts choice line`: all sets, the first split and
all parts if nothing is said. Real sets and the pilots, cut to about 500 posts to train on, 200 to validate and 1,000
to test, whole groups in each; both sides see the same posts and the same encoders. What is finished stays, in
`.cache/quality` or in the folder that QUALITY names. AutoGluon runs in an environment of its own, whose Python
AUTOGLUON may name."""
import argparse
import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_matrix, hstack
from sklearn.metrics import log_loss
from sklearn.preprocessing import normalize

from bench.quality_choice import HALF, study
from bench.quality_experts import linear, scores_of, softmax, vectors_of
from bench.quality_line import run_line
from bench.quality_serving import DATA as SERVED
from bench.quality_serving import latency
from bench.quality_sets import DATASETS, HOME, SETS, cpu_seconds, read_split, write_scores, write_split
from bench.text_training import autogluon_python
from multimodal_fakes.core import read_json, write_json
from multimodal_fakes.experts.encoder import load_encoder_conf, resolve_source
from multimodal_fakes.fuse.choice import UNSURE
from multimodal_fakes.metrics import paired_bootstrap, score_table

PARTS = ("linear", "choice", "line", "autogluon", "serving")       # the last one is of one set alone
SIDES = dict(ours="line", linear="linear", autogluon="autogluon")       # side → folder of its scores
LINEAR = ("text_linear", "vision_mobilenet", "video_linear", "audio_linear", "text_clip", "vision_clip")   # experts
METRICS = ("accuracy", "macro_f1", "nll", "auroc")
LOWER = {"nll"}                  # is better
COLOURS = dict(ours="darkorange", linear="grey", autogluon="steelblue")
COMMAND = "python -m bench quality"


# ---- sides
def run_linear(name, seed):
    """Logistic regression over TF-IDF of the text, over vectors of the picture, and over both side by side

    The one of the lowest loss on validation counts."""
    folder = HOME/"linear"/name/str(seed)
    if (folder/"about.json").exists():
        return
    before = cpu_seconds()
    posts, known, experts = scores_of(name, seed)
    k, y = len(known["classes"]), posts.y.to_numpy()
    train, val = ((posts.split == s).to_numpy() for s in ("train", "val"))
    wanted = [e for e in LINEAR if e in experts]
    p = {e: softmax(experts[e][2].astype(float)) for e in wanted}
    if len(wanted) > 1:
        p["side by side"] = softmax(linear(side_by_side(vectors_of(name, posts), wanted), y, train, val, k))
    loss = {c: log_loss(y[val], probs[val], labels=range(k)) for c, probs in p.items()}
    best = min(loss, key=loss.get)
    write_scores(folder, posts, p[best])
    write_json(folder/"about.json", dict(columns=best, loss=loss, cpu_seconds=cpu_seconds() - before))


def side_by_side(seen, wanted):
    "Vectors of each modality with length 1; two in one space as interactions (n, D) sparse"
    if "text_clip" in wanted:
        return interactions(seen)
    return hstack([normalize(spread(seen[e])) for e in wanted]).tocsr()


def spread(expert):
    "Vectors of every post, nothing where it lacks the modality (n, D) sparse"
    _, has, x, _ = expert
    rows = np.flatnonzero(has)
    place = csr_matrix((np.ones(len(rows)), (rows, np.arange(len(rows)))), shape=(len(has), len(rows)))
    return place @ csr_matrix(x)


def interactions(seen):
    """Vectors of both sides, their differences and products, each column alike in spread

    Together a row is about as long as other vectors, so that the same strengths fit it."""
    t, v = seen["text_clip"][2], seen["vision_clip"][2]
    x = np.hstack([t, v, np.abs(t - v), t * v])
    return csr_matrix((x - x.mean(0)) / x.std(0) / np.sqrt(x.shape[1]))


def run_autogluon(name, seed):
    "AutoGluon MultiModal, in a process of its own"
    folder, python = HOME/"autogluon"/name/str(seed), os.environ.get("AUTOGLUON") or autogluon_python()
    if (folder/"about.json").exists() or python is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    minilm = resolve_source(load_encoder_conf("minilm").source)
    weights = DATASETS.parent/load_encoder_conf("mobilenetv2").weights
    program = Path(__file__).with_name("quality_autogluon.py")
    command = [python, program, write_split(name, seed), minilm, weights, folder]
    with open(folder/"log.txt", "w") as log:
        subprocess.run([str(part) for part in command], stdout=log, stderr=log, check=True,
                       env=os.environ | {"HF_HUB_OFFLINE": "1"})


# ---- figures
def probabilities(name, seed, side):
    "What a side says of the test posts, in the order of the split, by a temperature that is fitted on validation"
    path = HOME/SIDES[side]/name/str(seed)/"scores.parquet"
    if not path.exists():
        return None
    posts, about = read_split(name, seed)
    table = pd.read_parquet(path).set_index("id")
    z = {}
    for split in ("val", "test"):
        ids = posts.id[posts.split == split]
        p = table.loc[ids, [f"p_{k}" for k in range(len(about["classes"]))]].to_numpy(float)
        z[split] = np.log(np.maximum(p, 1e-9))
    return softmax(z["test"] / temperature(z["val"], posts.y[posts.split == "val"].to_numpy()))


def temperature(z, y):
    "The one of the lowest loss"
    def loss(log_t):
        return -np.log(softmax(z / np.exp(log_t))[np.arange(len(y)), y] + 1e-12).mean()
    return np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)


def compared(name, seed) -> dict:
    "Scores of each side on test, and what ours has more than each other, with its interval by group"
    posts, about = read_split(name, seed)
    test = posts[posts.split == "test"]
    y, groups = test.y.to_numpy(), test.group.to_numpy()
    p = {side: probabilities(name, seed, side) for side in SIDES}
    p = {side: probs for side, probs in p.items() if probs is not None}
    metrics = [m for m in METRICS if m != "auroc" or len(about["classes"]) == 2]
    row = dict(set=name, seed=seed, n=len(y), groups=int(test.group.nunique()), classes=len(about["classes"]))
    row["scores"] = {side: {m: score_table(y, probs)[m] for m in metrics} for side, probs in p.items()}
    row["more"] = {}
    for side in p.keys() - {"ours"} if "ours" in p else ():
        row["more"][side] = {m: paired_bootstrap(y, p["ours"], p[side], m, groups) for m in metrics}
    return row


def behind(row, side) -> list: # of metrics
    "Where ours is worse than another side by more than its interval"
    worse = []
    for m, (_, low, high) in row["more"].get(side, {}).items():
        if low is not None and (low > 0 if m in LOWER else high < 0):
            worse.append(m)
    return worse


def ranks(rows) -> dict: # metric → side → mean rank over the sets that every side has; 1 is best
    "Average rank of each side"
    whole = [row for row in rows if set(row["scores"]) == set(SIDES)]
    mean = {}
    for m in METRICS:
        measured = [row["scores"] for row in whole if m in row["scores"]["ours"]]
        table = pd.DataFrame([{side: scores[m] for side, scores in of_sides.items()} for of_sides in measured])
        if len(table):
            mean[m] = table.rank(axis=1, ascending=m in LOWER).mean().round(3).to_dict()
    return mean


# ---- the bench
def run(arguments=()) -> list:
    "Run what is asked for and not yet there, print tables, return figures"
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.split("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--splits", nargs="+", type=int, default=[0])
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    args = parser.parse_args(arguments)
    places = [(name, seed) for name in args.sets for seed in args.splits]
    steps = dict(linear=run_linear, line=run_line, autogluon=run_autogluon, choice=run_study)
    for name, seed in places:
        for part in [part for part in args.parts if part in steps]:
            print(f"{name} {seed}: {part}", flush=True)
            steps[part](name, seed)
    rows = [compared(*place) for place in places]
    write_json(HOME/"rows.json", rows)
    draw(rows, HOME/"quality.png")
    entries = figures_of_sides(rows)
    entries += figures_of_choice([row for row in map(read_study, places) if row])
    return entries + (figures_of_serving() if "serving" in args.parts else [])


def run_study(name, seed):
    "What the choice regrets on a split"
    write_json(HOME/"choice"/name/f"{seed}.json", study(name, seed))


def read_study(place):
    path = HOME/"choice"/place[0]/f"{place[1]}.json"
    return read_json(path) if path.exists() else None


def about(data) -> dict:
    "What every figure carries"
    return dict(command=COMMAND, machine=f"{platform.machine()}, {os.cpu_count()} cores", data=data)


def figure(name, ours, peer, unit, higher, data) -> dict:
    "One figure as results.json keeps it"
    ratio = None if not peer else round(float(ours / peer), 3)
    ours, peer = round(float(ours), 4), round(float(peer), 4)
    return dict(name=name, ours=ours, peer=peer, ratio=ratio, unit=unit, higher_is_better=higher) | about(data)


def figures_of_sides(rows) -> list:
    "A table a person reads, and average ranks"
    for row in rows:
        posts = f"{row['n']} test posts in {row['groups']} groups, {row['classes']} classes"
        print(f"\n{row['set']}, split {row['seed']}: {posts}")
        print(pd.DataFrame(row["scores"]).T.round(4).to_string())
        for side, more in row["more"].items():
            words = [f"{m} {d:+.4f} [{low:+.4f}, {high:+.4f}]" for m, (d, low, high) in more.items() if low is not None]
            worse = behind(row, side)
            print(f"  ours over {side}: {', '.join(words)}" + (f"  BEHIND in {', '.join(worse)}" if worse else ""))
    entries = []
    n = sum(set(row["scores"]) == set(SIDES) for row in rows)
    seeds = sorted({row["seed"] for row in rows})
    data = f"{n} splits of {len({row['set'] for row in rows})} sets, about 500 training posts each, seeds {seeds}"
    for m, mean in ranks(rows).items():
        print(f"average rank, {m}: {mean}")
        for side in ("linear", "autogluon"):
            title = f"quality, average rank by {m}, against {side}"
            entries.append(figure(title, mean["ours"], mean[side], "rank", False, data))
    return entries


def figures_of_serving() -> list:
    "What an ensemble costs through ONNX, beside MiniLM alone"
    both, alone, ratio = latency()
    title = "quality, a headline through ONNX, linear and MiniLM together against MiniLM alone"
    return [figure(title, 1000 * both, 1000 * alone, "ms", False, SERVED) | dict(ratio=round(ratio, 3))]


def figures_of_choice(rows) -> list:
    "Mean regret of each rule, over all splits and over those whose validation can tell; and of weighted against mean"
    if not rows:
        return []
    for row in rows:
        shipped = ", ".join(f"{rule} {c} ({row['regret'][rule]:.4f})" for rule, c in row["shipped"].items())
        best = f"best {row['best']} {row['scores'][row['best']]['accuracy']:.4f}"
        print(f"  {row['set']} {row['seed']}: {row['validation_groups']:.1f} groups, {best}; {shipped}")
        for m, (gain, low, high) in row.get("weighted_over_mean", {}).items():
            if low > 0 if m in LOWER else high < 0:
                print(f"    weighted BEHIND mean: {m} {gain:+.4f} [{low:+.4f}, {high:+.4f}]")
    told = [row for row in rows if row["validation_groups"] >= UNSURE]
    return figures_of_regret(rows, "") + figures_of_regret(told, f", validation worth {UNSURE} groups or more")


def figures_of_regret(rows, which) -> list:
    "What ships against the rule before, and against the best of one half of test"
    if not rows:
        return []
    regret = {rule: 100 * np.mean([row["regret"][rule] for row in rows]) for rule in rows[0]["regret"]}
    print(f"\nmean regret of accuracy{which}:", {rule: round(float(r), 2) for rule, r in regret.items()})
    data = f"{len({row['set'] for row in rows})} sets, {len(rows)} splits"
    peers = {"the rule before": "gated", "the best of one half of test": HALF}
    return [figure(f"quality, mean regret of the choice{which}, against {words}", regret["ships"], regret[peer],
                   "points of accuracy", False, data) for words, peer in peers.items()]


def draw(rows, path):
    "Average ranks; and what ours has more of accuracy than each other side on each set, with its interval"
    from multimodal_fakes.figures import subplots
    rows = [row for row in rows if row["more"]]
    fig, (left, right) = subplots(1, 2, figsize=(11, 1.5 + 0.32 * len(rows)), dpi=110, width_ratios=[1, 2])
    for i, (m, mean) in enumerate(ranks(rows).items()):
        left.scatter(mean.values(), [i] * len(mean), s=40, color=[COLOURS[side] for side in mean])
        left.text(3.1, i, m)
    left.set(xlabel="average rank, 1 is best", xlim=(0.9, 4), yticks=[])
    for shift, side in ((-0.15, "linear"), (0.15, "autogluon")):
        own = [(i + shift, *row["more"][side]["accuracy"]) for i, row in enumerate(rows) if side in row["more"]]
        at, gain, low, high = np.array(own).T if own else np.zeros((4, 0))
        right.hlines(at, low, high, color=COLOURS[side], lw=2)
        right.scatter(gain, at, s=20, color=COLOURS[side], label=f"over {side}")
    right.axvline(0, color="black", lw=0.8)
    right.set(yticks=range(len(rows)), yticklabels=[f"{row['set']} {row['seed']}" for row in rows],
              xlabel="accuracy that ours has more, with its 95 % interval by group")
    right.invert_yaxis()
    right.legend(fontsize=8)
    fig.tight_layout()
    fig.savefig(path)
