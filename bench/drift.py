"""Watching a stream: false alarms in 200 quiet weeks, posts until the alarm for ten shifts, beside PSI > 0.2 a week.

Traffic is played (rhythm, weather, copies) from the pilot's validation and test posts, as its detectors judge them.
It needs a finished pilot: name its folder with PILOT=…; and real posts in other words: DATASETS=…, as for `verite`."""
import csv
import os
import platform
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.cluster import KMeans

from multimodal_fakes.core import FakesError, read_jsonl, root
from multimodal_fakes.data.ocr import ocr_text
from multimodal_fakes.data.prepare import LANGUAGES, detect_languages
from multimodal_fakes.detect.corruptions import corrupt
from multimodal_fakes.detect.predict import Detector
from multimodal_fakes.fuse.combine import ocr_confidence
from multimodal_fakes.metrics import decide
from multimodal_fakes.track.drift import quantile_edges
from multimodal_fakes.track.traffic import Cast, Shift, play
from multimodal_fakes.track.watch import Coordinates, WatchConf, measure, watch
from multimodal_fakes.track.windows import WEEK, Posts, wilson

PILOT = Path(os.environ.get("PILOT", root()))
DATASETS = Path(os.environ.get("DATASETS", root().parent/"shared/Datasets"))
CONF = WatchConf()
REFERENCE, QUIET, AFTER = 8, 200, 12      # weeks of reference, of quiet watching, and after a shift
PER_WEEK = 2000                           # posts
WITHIN = 2000                             # posts within which a shift should be told
RUNS, SEEDS = 40, 20                      # quiet runs; runs of each shift
FIRST = 3000                              # seed; what was chosen was chosen on seeds below
NAIVE = 0.2                               # PSI of a week that most services call drift
ELSEWHERE = "es"                          # a language that the pilot does not speak


# ---- the cast: posts as a detector judges them

class Judged(NamedTuple):
    "What a detector says of some posts"
    probs: np.ndarray
    ood: np.ndarray
    ocr: np.ndarray         # NaN without OCR
    language: np.ndarray
    vectors: dict


def posts_of_pilot(dataset):
    "Validation and test posts of a pilot that have a text, and whether each is of the positive class"
    manifest = read_jsonl(PILOT/"Step_2/data_manifest.jsonl")
    field, positive = {"pilot_fakeddit": ("2_way_label", "0"), "pilot_hateful_memes": ("label", 1)}[dataset]
    own = [e for e in manifest if e["dataset"] == dataset and e["split"] != "train" and e["text_raw"]]
    seen = {e["meta"].get("sha256", e["id"]): e for e in own}              # one of each picture
    own = list(seen.values())
    return own, np.array([int(e["labels_raw"][field] == positive) for e in own])


def judge(detector, captions, pictures, read=None):
    "What a detector says of posts; `read`: lines of OCR, where it reads"
    samples, quality = [], []
    read = read or [[]] * len(captions)
    for caption, picture, lines in zip(captions, pictures, read):
        sample = {"text": detector._text(caption, ocr_text(lines))} if caption or lines else {}
        if picture is not None:
            sample["vision"] = detector.open({"image": picture})[0]["image"]
        samples.append(sample)
        n_pixels = np.nan if picture is None else sample["vision"].n_pixels
        quality.append((len(sample.get("text", "").split()), ocr_confidence(lines), n_pixels))
    seen = detector.see_all(samples)
    vectors = {}
    for name in ("text", "vision", "vision_linear"):
        if name in seen and detector.modality[name] not in vectors:
            there = seen[name].present[:, None]
            vectors[detector.modality[name]] = np.where(there, seen[name].features, np.nan).astype("float32")
    language = [code or "" for code in detect_languages(list(captions), LANGUAGES)]
    ocr = np.array([ocr_confidence(lines) if lines else np.nan for lines in read])
    probs, far = detector.judge(samples, quality, seen), np.array(detector.far(seen), float)
    return Judged(probs, far, ocr, np.array(language, object), vectors)


def as_pool(detector, parts, y):
    "Judged posts one after another, as the history would keep them"
    def joined(name): return np.concatenate([getattr(part, name) for part in parts])
    probs, ood = joined("probs"), joined("ood")
    answers = decide(probs, detector.positive, detector.bundle["threshold"])
    confidence = probs[np.arange(len(probs)), answers]
    vectors = {name: np.concatenate([part.vectors[name] for part in parts]) for name in parts[0].vectors}
    sees = np.isfinite(vectors["vision"]).all(1)
    least = detector.bundle["abstain_below"] or 0
    numbers = dict(
        abstained=(confidence < least) | detector.familiar.unfamiliar(ood), degraded=~sees, has_vision=sees, ood=ood,
        ocr=joined("ocr"), set_size=[len(detector.possible(p)) for p in probs])
    numbers = {name: np.asarray(values, float) for name, values in numbers.items()}
    n = len(probs)
    return Posts(
        np.zeros(n), detector.classes, probs, np.eye(len(detector.classes))[answers] > 0, np.arange(n), numbers,
        {"language": joined("language")}, vectors, np.tile(y, len(parts)))


def encoded_anew(pictures):
    "As a client sends them that saves bandwidth: a quarter of the size, then JPEG of quality 8"
    small = [p and p.resize((max(1, p.width // 4), max(1, p.height // 4))) for p in pictures]
    return [p and corrupt("vision", "jpeg", p, 5) for p in small]


def unsure(judged, temperature=2.5):
    "The same posts, after somebody lost the calibration"
    logits = np.log(judged.probs.clip(1e-9)) / temperature
    probs = np.exp(logits - logits.max(1, keepdims=True))
    return judged._replace(probs=probs / probs.sum(1, keepdims=True))


def real_posts(n):
    "Texts and pictures of real posts, and sentences in a language that the pilot does not speak"
    for name in ("covid_fake_news", "mediaeval", "multilingual_hatecheck"):
        if not (DATASETS/name).is_dir():
            raise FakesError(f"No folder {DATASETS/name}: name the folder that holds the datasets with DATASETS=….")
    def column(path, name):
        with open(DATASETS/path, encoding="utf-8", newline="") as f:
            return [row[name] for row in csv.DictReader(f)]
    tweets = column("covid_fake_news/Constraint_Val.csv", "tweet")
    pictures = sorted(p for p in (DATASETS/"mediaeval").rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    foreign = column("multilingual_hatecheck/hatecheck_cases_final_spanish.csv", "test_case")
    rng = np.random.default_rng(0)
    return [[some[i] for i in rng.integers(0, len(some), n)] for some in (tweets, pictures, foreign)]


def cast_of(name, dataset):
    "A cast of a pilot task, and its detector's versions of each post"
    detector = Detector.load(PILOT/f"models/{name}", runtime="onnx", threads=1)
    posts, y = posts_of_pilot(dataset)
    captions = [e["text_raw"] for e in posts]
    pictures = [e["image_path"] and Image.open(PILOT/"Datasets"/e["image_path"]).convert("RGB") for e in posts]
    versions = versions_of(detector, posts, captions, pictures)
    rows = {name: len(posts) * i + np.arange(len(posts)) for i, name in enumerate(versions)}
    pool = as_pool(detector, list(versions.values()), y)
    both = np.nan_to_num(np.c_[pool.vectors["text"], pool.vectors["vision"]][:len(posts)])
    topic = KMeans(8, n_init=3, random_state=0).fit_predict((both - both.mean(0)) / (both.std(0) + 1e-6))
    return Cast(pool, np.arange(len(posts)), topic, rows)


def versions_of(detector, posts, captions, pictures):
    "The posts as they are, and with one thing changed"
    if detector.bundle["ocr"]:
        lines = {row["id"]: row["ocr"]["lines"] for row in read_jsonl(PILOT/"Step_2/ocr.jsonl")}
        own = [lines.get(e["id"], []) for e in posts]
        detector.bundle["ocr"] = detector.bundle["ocr"] | dict(side=96)      # somebody made pictures small for OCR
        badly = [p and detector._read(detector.open({"image": p})[0]["image"], {}) or [] for p in pictures]
        return dict(usual=judge(detector, captions, pictures, own), bad_ocr=judge(detector, captions, pictures, badly))
    usual = judge(detector, captions, pictures)
    tweets, others, foreign = real_posts(len(posts))
    stickered = [p and corrupt("vision", "sticker", p, 3, e["id"]) for p, e in zip(pictures, posts)]
    return dict(
        usual=usual, unsure=unsure(usual),
        new_topic=judge(detector, tweets, others),
        new_language=judge(detector, foreign, pictures),
        sticker=judge(detector, captions, stickered),
        encoding=judge(detector, captions, encoded_anew(pictures)),
        no_picture=judge(detector, captions, [None] * len(posts)))


# ---- the rule of most services

class Naive:
    "PSI of each quantity in a week against the reference, over 0.2"
    def __init__(self, pool, usual):
        columns = {f"p_{c}": pool.probs[:, i] for i, c in enumerate(pool.classes[1:], 1)} | pool.numbers
        self.codes = [_codes(x, x[usual]) for x in columns.values()]
        self.codes.append(np.unique(pool.kinds["language"].astype(str), return_inverse=True)[1])

    def alarms(self, stream, n_weeks):     # (weeks, quantities) after the reference, the score first
        "Whether each week's posts, copies too, are over 0.2"
        week = np.minimum((stream.time / WEEK).astype(int), n_weeks - 1)
        over = []
        for codes in self.codes:
            k = codes.max() + 1
            counts = np.bincount(week * k + codes[stream.row], minlength=n_weeks * k).reshape(n_weeks, k)
            reference = counts[:REFERENCE].sum(0)
            p = np.maximum(reference / reference.sum(), 1e-4)
            q = np.maximum(counts[REFERENCE:] / np.maximum(counts[REFERENCE:].sum(1, keepdims=True), 1), 1e-4)
            over.append(((q - p) * np.log(q / p)).sum(1) > NAIVE)
        return np.stack(over, 1)


def _codes(x, usual):
    "Bins of a number, one more where it is not known"
    known = usual[np.isfinite(usual)]
    if not len(known):
        return np.zeros(len(x), int)
    return np.where(np.isfinite(x), np.searchsorted(quantile_edges(known), np.nan_to_num(x)), 10)


# ---- the replay

class Play(NamedTuple):
    "What is needed to play a cast"
    cast: Cast
    coordinates: Coordinates
    watched: np.ndarray      # (pool, columns)
    naive: Naive


def prepared(cast):
    coordinates = Coordinates(cast.posts.take(cast.usual), CONF)
    return Play(cast, coordinates, coordinates.of(cast.posts), Naive(cast.posts, cast.usual))


def watched(p, stream, reference=REFERENCE):
    "The watch over a stream"
    n = len(stream.time)
    times = Posts(stream.time, [], np.zeros((n, 0)), np.zeros((n, 0)), stream.group)
    numbers = measure(times, p.coordinates, reference * 7, CONF.every, p.watched[stream.row])
    return watch(numbers, int((numbers.end < reference * WEEK).sum()), CONF)


def quiet_run(p, seed, per_week):
    "Whether 200 weeks without change had an alarm: by us, by PSI of anything, by PSI of the score"
    stream = play(p.cast, REFERENCE + QUIET, per_week, seed=seed)
    w = watched(p, stream)
    loud = [q for q in w.quantities if w.first(q) is not None]
    if loud:
        print(f"   seed {seed}: {', '.join(loud)}", flush=True)
    over = p.naive.alarms(stream, REFERENCE + QUIET)
    return bool(loud), over.any(), over[:, 0].any()


def shift_run(p, shift, seed):
    "Posts from the shift to the alarm of ours and of PSI, infinite where none came; and what was alarmed first"
    at = REFERENCE + 4 + np.random.default_rng(seed).random()
    stream = play(p.cast, at + AFTER, PER_WEEK, seed=seed, shift=shift, at=at)
    w = watched(p, stream)
    begin = at * WEEK
    def posts_until(moment): return int(((stream.time >= begin) & (stream.time <= moment)).sum())
    over = w.evidence >= w.limit
    after = w.numbers.end[w.n:] > begin
    late = over & after[:, None] & ~over[~after].any(0)          # what alarmed before does not tell of this shift
    ours, first = np.inf, ""
    if late.any():
        k = int(late.any(1).argmax())
        ours, first = posts_until(w.numbers.end[w.n + k]), w.quantities[int(late[k].argmax())]
    over = p.naive.alarms(stream, int(at + AFTER)).any(1)
    weeks = REFERENCE + 1 + np.flatnonzero(over)               # at whose ends it is told
    weeks = weeks[weeks * WEEK > begin]
    return ours, posts_until(weeks[0] * WEEK) if len(weeks) else np.inf, first


def shifts_of(cast):
    "Nine shifts of posts with text and picture"
    y = cast.posts.label[cast.usual]
    more = np.where(y == 1, .75 / y.mean(), .25 / (1 - y.mean()))
    return {
        "new topic, a third of the posts": Shift(cast.instead["new_topic"], share=1/3),
        "new language, a fifth": Shift(cast.instead["new_language"], share=.2),
        "stickers, half of the pictures": Shift(cast.instead["sticker"], share=.5),
        "pictures made small and encoded anew": Shift(cast.instead["encoding"]),
        f"prior shift, fakes from {y.mean():.0%} to 75 %": Shift(weights=more),
        "pictures missing, a fifth": Shift(cast.instead["no_picture"], share=.2),
        "bots repeat one post, half of the posts": Shift(flood=1.0),
        "slow drift, a new topic grows to half in six weeks": Shift(cast.instead["new_topic"], share=.5, over=6 * WEEK),
        "confidence collapses": Shift(cast.instead["unsure"]),
    }


# ---- figures

def entry(name, ours, peer, unit, data):
    "One figure as results.json keeps it"
    ratio = None if not peer else round(float(ours / peer), 3)
    return dict(
        name=name,
        ours=round(float(ours), 4),
        peer=round(float(peer), 4),
        ratio=ratio,
        unit=unit,
        higher_is_better=False,
        command="python -m bench drift",
        machine=f"{platform.machine()}, {os.cpu_count()} cores, one used",
        data=data,
    )


def quiet(plays):
    "False alarms without change"
    for name, p, per_week, runs in plays:
        began = time.perf_counter()
        ours, peer, score = np.array([quiet_run(p, FIRST + seed, per_week) for seed in range(runs)]).T
        low, high = wilson(ours.sum(), runs)
        seconds = (time.perf_counter() - began) / runs
        data = (f"{runs} runs of {QUIET} weeks, {per_week:,} posts a week, reference {REFERENCE} weeks; "
                f"promised at most {CONF.false_alarms:.0%}, measured [{low:.0%}, {high:.0%}]; "
                f"PSI of the score alone {score.mean():.0%}; {seconds:.1f} s a run")
        print(name, ours.mean(), peer.mean(), data, flush=True)
        yield entry(f"quiet weeks, {name}: runs with any false alarm", ours.mean(), peer.mean(), "share of runs", data)


def told(name, p, shift):
    "Posts until one shift is told"
    ours, peer, first = zip(*(shift_run(p, shift, FIRST + 500 + seed) for seed in range(SEEDS)))
    most = AFTER * PER_WEEK
    ours, peer = (np.minimum(x, most) for x in (ours, peer))
    ninety = np.quantile(ours, .9)
    within = [int((x <= WITHIN).sum()) for x in (ours, peer)]
    never = [int((x >= most).sum()) for x in (ours, peer)]
    common = max(set(first), key=first.count) or "nothing"
    data = (f"{SEEDS} runs, {PER_WEEK:,} posts a week; nine in ten by {ninety:,.0f} posts; within {WITHIN:,} posts "
            f"{within[0]} of {SEEDS}, by PSI {within[1]}; never told {never[0]}, by PSI {never[1]}, "
            f"counted as {most:,}; told first by {common}")
    print(name, np.median(ours), np.median(peer), data, flush=True)
    return entry(f"{name}: posts until the alarm, median", np.median(ours), np.median(peer), "posts", data)


def run() -> list:
    "False alarms, then ten shifts"
    news = prepared(cast_of("fake_news", "pilot_fakeddit"))
    memes = prepared(cast_of("hateful_memes", "pilot_hateful_memes"))
    entries = [told(name, news, shift) for name, shift in shifts_of(news.cast).items()]
    entries.append(told("OCR breaks", memes, Shift(memes.cast.instead["bad_ocr"])))
    plays = [
        ("fake news", news, PER_WEEK, RUNS),
        ("memes", memes, PER_WEEK, RUNS // 2),
        ("fake news, few posts", news, 500, 2 * RUNS),
    ]
    return [*entries, *quiet(plays)]
