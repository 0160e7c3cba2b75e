"""How well copies are recognised: recall at 1 % false positives for each corruption, and what a distance means

`python -m bench.memory_copies [picture text sound video meme]` measures all kinds or those named; with `--write` it
also writes `multimodal_fakes/memory/copies.json`, the curves that ship, which takes all kinds (`bench.copied`).

Each original is in one half by its family: the first half makes the curves, the second tests them and gives figures.
A copy is an original that went through a corruption of `detect.corruptions`; what it is held against is the nearest of
the other originals of its half. A false positive is a post that is not in the memory and lies within the threshold of
any original there."""
import json
import random
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from bench.copied import KINDS, MEMES_SAID, SEED, drawn_prints, meme_copies, same_template
from bench.memory import entry
from multimodal_fakes.core import FakesError, digest, nearest
from multimodal_fakes.data.duplicates import normalise
from multimodal_fakes.memory import copies as knowing
from multimodal_fakes.memory.copies import compare
from multimodal_fakes.memory.prints import minhash

ALLOWED = 0.01            # false positives
CURVES = Path(__file__).parent.parent/"multimodal_fakes/memory/copies.json"


def half_of(family):
    "0 or 1, by the name of a family"
    return int(digest(SEED, family), 16) % 2


class Held(NamedTuple):
    "Distances of one half"
    copies:dict           # (method, corruption, severity) → distances to their own originals
    others:dict           # method → distances to the nearest that is no copy
    size:int              # originals that the nearest was sought among


def held(kind, half, others=1000):
    "The distances of one half: of copies to their originals, of originals and copies to the nearest other"
    own = [i for i, family in enumerate(kind.families) if half_of(family) == half]
    rng = random.Random(SEED)
    chosen, asked = rng.sample(own, min(kind.chosen, len(own))), rng.sample(own, min(others, len(own)))
    families = np.array([kind.families[i] for i in own])
    away_from = {name: make([kind.originals[i][name] for i in own]) for name, make in kind.distances.items()}
    copies, far = defaultdict(list), defaultdict(list)

    def look(prints, i, *where):
        for name, distances in away_from.items():
            away = distances(prints[name])
            if where: copies[name, *where].append(away[own.index(i)])
            far[name].append(away[families != kind.families[i]].min())

    for i in asked: look(kind.originals[i], i)
    for i in chosen:
        for corruption, severity, prints in kind.copies(i): look(prints, i, corruption, severity)
    copies, far = ({key: np.array(values, float) for key, values in found.items()} for found in (copies, far))
    return Held(copies, far, len(own))


# ---- memes

NEAR = 48           # bits between pictures whose words are compared


def meme_distances(memes, copies):
    "Of one half: (distances of copies, distances of those with other words), of the words and of the pictures"
    bits, shares = {}, {}
    for kind, pairs in (("copies", copies), ("others", same_template(memes))):
        away = [np.bitwise_count(a[3].picture ^ b[3].picture[0]).sum(1, dtype=int).min() for a, b in pairs]
        # words are compared in pictures that are near; of others all tell, their words know nothing of bits
        near = [(a[4], b[4]) for (a, b), n in zip(pairs, away) if n <= NEAR or kind == "others"]
        words = [(normalise(one), normalise(other)) for one, other in near]
        bits[kind], shares[kind] = away, [(minhash(a) != minhash(b)).mean() for a, b in words if a and b]
    return {"written": (shares["copies"], shares["others"]), "memes": (bits["copies"], bits["others"])}


# ---- what a distance means

# of the distances of a curve
STEP_OF = {"pdq": 4, "pdq_unread": 4, "shingles": 1 / 32, "written": 1 / 16, "vpdq": 1 / 8, "sound": 1 / 64}


def fitted(name, copies, others):
    "A curve: isotonic over steps of distance, both kinds of pairs weighing the same"
    from sklearn.isotonic import IsotonicRegression
    ends = [np.ceil(np.asarray(d, float) / STEP_OF[name] - 1e-9) * STEP_OF[name] for d in (copies, others)]
    x, y = np.concatenate(ends), np.repeat([1., 0.], [len(copies), len(others)])
    weights = np.where(y, 1 / len(copies), 1 / len(others))
    levels = IsotonicRegression(increasing=False).fit(x, y, weights).predict(x).round(9)
    steps = []
    for level in sorted(set(levels), reverse=True):
        here = levels == level
        n, m = int(y[here].sum()), int((1 - y[here]).sum())
        is_copy, is_other = (n + 0.5) / (len(copies) + 1), (m + 0.5) / (len(others) + 1)
        likely = min([is_copy / (is_copy + is_other), *(step[1] for step in steps)])
        steps.append((round(float(x[here].max()), 5), round(float(likely), 4), n, m))
    return dict(zip(("to", "probability", "copies", "others"), map(list, zip(*steps))))


def miscalibration(curve, copies, others):
    "Mean gap between probability and share of copies over the steps of a curve, both kinds of pairs weighing the same"
    ends = np.array([*curve["to"], np.inf])
    likely = np.array([*curve["probability"], 0.])
    n, m = (np.bincount(np.searchsorted(ends, d), minlength=len(ends)) / len(d) for d in (copies, others))
    return float(np.abs(n - likely * (n + m)).sum() / 2)


def halves(kind):
    "`Held` of both halves"
    return [held(kind, half) for half in (0, 1)]


def pairs_of(held_here):
    "(distances of copies, distances of the nearest others) of ours"
    copies = [d for (method, *_), d in held_here.copies.items() if method == "ours"]
    return np.concatenate(copies), held_here.others["ours"]


# ---- figures



def threshold(others):
    "The least distance at which more than the allowed share of others would be taken for copies"
    return np.sort(others)[int(ALLOWED * len(others))]


def entries_of(part, kind, measured):
    "Recall of each corruption and severity at the allowed share of false positives, and the table for people"
    methods, n_others = list(kind.distances), len(measured.others["ours"])
    limits = {method: threshold(others) for method, others in measured.others.items()}
    print(f"\n{part}: {kind.data}; {n_others:,} posts that are not there, each against {measured.size:,} originals")
    print("| corruption | severity | " + " | ".join(methods) + " |")
    for _, name, severity in [where for where in measured.copies if where[0] == "ours"]:
        told = {method: measured.copies[method, name, severity] < limits[method] for method in methods}
        shares = {method: float(near.mean()) for method, near in told.items()}
        print(f"| {name:14} | {severity} | " + " | ".join(f"{share:.3f}" for share in shares.values()) + " |")
        what = f"copies of a {part}, {name} {severity}: recall at 1 % false positives"
        data = f"{kind.data}; {sure(told['ours'], 'copies')}"
        yield figure(what, shares["ours"], "share", data, peer=next((shares[m] for m in methods[1:]), None))


def figure(what, ours, unit, data, **options):
    "An entry of this bench"
    return entry(what, ours, unit, f"{data}, seed {SEED}", "python -m bench.memory_copies", **options)


def meme_entries(memes, copied):
    "How often memes of one template with other words are taken for copies, and copies of memes are not"
    pairs = same_template(memes)
    for way, at, most in (("words given", 1, 0.005), ("words read", 4, 0.005), ("nothing read", None, None)):
        told = [relation(a, b, at) == "copy" for a, b in pairs]
        what = f"memes of one template with other words, {way}: taken for copies"
        yield figure(what, float(np.mean(told)), "share", sure(told, "pairs of made memes"), most=most)
    for kind in ("copy", "same template"):
        told = [relation(a, b, 4) == kind for a, b in copied]
        what = f"copies of memes, words read, all corruptions: told as {kind}"
        yield figure(what, float(np.mean(told)), "share", sure(told, "copies of made memes"))


def relation(a, b, at):
    "What two memes are told as, by the words that stand at a place of both, none where nobody read"
    query, item = (meme[3] if at is None else meme[3]._replace(written=minhash(normalise(meme[at]))) for meme in (a, b))
    return next((one.relation for one in compare(query, item) if one.part == "image"), None)


def sure(told, what):
    "How many they are, and the 95 % interval of their share"
    interval = binomtest(int(np.sum(told)), len(told)).proportion_ci()
    return f"{len(told):,} {what}, 95 % interval {interval.low:.4f} to {interval.high:.4f}"


def all_curves(found, memes, copied):
    "Name → curve of the first half, and the pairs of the second half that test it"
    pairs = {kind.curve: [pairs_of(half) for half in halves] for kind, halves in found.values()}
    if memes:
        drawn = [meme_distances(*own) for own in zip(memes, copied)]
        pairs["written"] = [own["written"] for own in drawn]
    if memes and "pdq" in pairs:     # where nobody read, half of the pictures are memes
        pairs["pdq_unread"] = [mixed(a, own["memes"]) for a, own in zip(pairs["pdq"], drawn)]
    return {name: (fitted(name, *first), second) for name, (first, second) in pairs.items()}


def mixed(pairs, memes):
    "As many distances of pictures as of memes, drawn again"
    rng = np.random.default_rng(SEED)
    return [np.concatenate([rng.choice(own, 2000) for own in both]) for both in zip(pairs, memes)]


def run(parts=(), write=False):
    "The entries of all kinds, or of those named; writes the curves where asked"
    for part in parts:
        if part not in (*KINDS, "meme"): raise FakesError(f"No part {part!r}{nearest(part, (*KINDS, 'meme'))}")
    if write and parts: raise FakesError("The curves are written together: name no part beside --write.")
    kinds = {part: make() for part, make in KINDS.items() if part in (parts or KINDS)}
    found = {part: (kind, halves(kind)) for part, kind in kinds.items()}
    memes = by_half(drawn_prints()) if "meme" in (parts or ["meme"]) else []
    copied = [list(meme_copies(own)) for own in memes]
    fits = all_curves(found, memes, copied)
    if write: write_curves(fits, found)
    for part, (kind, (_, second)) in found.items(): yield from entries_of(part, kind, second)
    for name, (curve, pairs) in fits.items():
        gap = miscalibration(curve, *pairs)
        data = f"{len(pairs[0]):,} copies and {len(pairs[1]):,} others that the curve has not seen"
        yield figure(f"probability of a copy, {name}: mean gap to the share of copies", gap, "share", data, most=0.05)
    if memes: yield from meme_entries(memes[1], copied[1])


def by_half(memes):
    "Memes of the first and of the second half"
    found = [], []
    for meme in memes: found[half_of(f"template {meme[0]}")].append(meme)
    return found


def write_curves(fits, found):
    "The file that ships"
    data = {part: kind.data for part, (kind, _) in found.items()}
    about = {"command": "python -m bench.memory_copies --write", "seed": SEED, "data": data | {"memes": MEMES_SAID}}
    sizes = {kind.curve: first.size for kind, (first, _) in found.values()}
    curves = {name: {"nearest_of": sizes.get(name)} | curve for name, (curve, _) in fits.items()}
    about = [f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in about.items()]
    lines = [f"  {json.dumps(name)}: {json.dumps(curve)}" for name, curve in curves.items()]      # to be read
    CURVES.write_text("{" + ",\n ".join([*about, '"curves": {\n' + ",\n".join(lines) + "}}\n"]), encoding="utf-8")
    knowing.curves.cache_clear()


if __name__ == "__main__":
    for one in run([arg for arg in sys.argv[1:] if arg != "--write"], "--write" in sys.argv[1:]):
        print(f"{one['name']}: {one['ours']:.4g} {one['unit']}", *one["broken"])
