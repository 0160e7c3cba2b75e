"""How well copies are recognised: recall at 1 % false positives for each corruption, and what a distance means

`python -m bench memory copies [picture text sound video meme …]` measures all kinds or those named; with `--write` it
also writes `multimodal_fakes/memory/copies.json`, the curves that ship, which takes all kinds.

Originals are real pictures and texts where they may be had (clothing, fashion, mediaeval; clickbait, covid_fake_news),
and made ones where they may not (memes, sounds; clips are camera moves over real pictures). Each is in one half by its
family: the first half makes the curves, the second tests them and gives every figure below. A copy is an original that
went through a corruption of `detect.corruptions`; what it is held against is the nearest of the other originals of its
half. A false positive is a post that is not in the memory and lies within the threshold of any original there."""
import csv
import gzip
import hashlib
import json
import random
import sys
from collections import defaultdict
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image
from scipy.stats import binomtest

from bench.memory import entry
from multimodal_fakes.core import FakesError, digest, nearest
from multimodal_fakes.data.duplicates import near_texts, normalise
from multimodal_fakes.data.ocr import ocr_text, read_image
from multimodal_fakes.detect.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from multimodal_fakes.media import RATE, MediaError, open_image
from multimodal_fakes.memory import copies as knowing
from multimodal_fakes.memory import prints as making
from multimodal_fakes.memory.copies import LEAST_SOUND, compare, least_errors, spectra, unlike
from multimodal_fakes.memory.prints import QUALITY, make_prints, minhash, sound_print
from multimodal_fakes.pilots import clips, pilot

SEED = 0
SHARED = Path("/work/shared/Datasets")
ALLOWED = 0.01            # false positives
CURVES = Path(__file__).parent.parent/"multimodal_fakes/memory/copies.json"


class Kind(NamedTuple):
    "What is measured of one kind of part"
    originals:list        # prints, each a dict: method → codes
    families:list         # name of each; of one family some may be copies, so they are never held against each other
    copies:object         # function of a number: yields (corruption, severity, prints)
    distances:dict        # method → function of the codes of originals: a function of codes, its distances to each
    curve:str             # name of that of the method "ours"
    chosen:int            # originals of a half whose copies are made
    data:str


def half_of(family):
    "0 or 1, by the name of a family"
    return int(digest(SEED, family), 16) % 2


def hamming(others, first=(0,)):
    "A function: least bits between rows (k, W) of uint64 and the first ones of each of some items"
    held = np.stack(others)[:, list(first)]
    return lambda rows: np.bitwise_count(rows[:, None, None] ^ held[None]).sum(3, dtype=int).min((0, 2))


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


# ---- pictures

def number(data):
    "64 bits of the sum of some bytes"
    return np.frombuffer(hashlib.sha256(data).digest()[:8], np.uint64)[None]


def as_words(rows):
    "Hashes of 32 bytes as four numbers each"
    return np.ascontiguousarray(rows).view(np.uint64)


def of_picture(image):
    "Method → codes of a picture: 16 rows of ours (all turns, with and without border), PDQ, pHash, a sum of its pixels"
    prints = make_prints(image=image)
    says = prints.quality >= QUALITY
    rows = prints.picture if says else np.zeros((8, 32), np.uint8)
    both = np.concatenate([rows, rows if prints.inner is None else prints.inner])
    phash = np.packbits(imagehash.phash(image).hash).view(np.uint64)[None]
    codes = {"ours": as_words(both), "PDQ alone": as_words(rows[:1]), "pHash alone": phash}
    return codes | {"exact": number(image.tobytes())}


def picture_files():
    "(family, path) of real pictures"
    for name, table, column in (("clothing", "manifest.csv", "id"), ("fashion", "products.csv", "id")):
        with open(SHARED/name/table, encoding="utf-8") as file:
            for row in csv.DictReader(file): yield f"{name} {row[column]}", SHARED/name/row["image"]
    with open(SHARED/"mediaeval/manifest.csv", encoding="utf-8") as file:
        seen = {row["image"]: row["event"] for row in csv.DictReader(file)}
    for path, event in seen.items(): yield f"mediaeval {event}", SHARED/"mediaeval"/path


def readable():
    "(family, path, picture) of real pictures that can be decoded"
    for family, path in picture_files():
        with suppress(MediaError): yield family, path, open_image(path)


def pictures():
    "Real pictures and their copies"
    found = [(family, path, of_picture(image)) for family, path, image in readable()]
    names, paths, originals = zip(*found)
    families = joined(names, np.concatenate([original["PDQ alone"] for original in originals]))

    def copies(i):
        for name in CORRUPTIONS["vision"]:
            for severity in SEVERITIES:
                changed = corrupt("vision", name, paths[i], severity, paths[i].name, SEED)
                yield name, severity, of_picture(changed)
        for name, change in MOVED.items(): yield name, 1, of_picture(change(open_image(paths[i])))

    distances = {"ours": partial(hamming, first=(0, 8))} | dict.fromkeys(("PDQ alone", "pHash alone", "exact"), hamming)
    said = f"{len(paths):,} real pictures (clothing, fashion, mediaeval)"
    return Kind(originals, families, copies, distances, "pdq", 40, said)


# bits up to which two originals are one picture: shops list a thing twice; from 12 on they are two
LISTED_TWICE = 8


def joined(families, hashes):
    "Names of families, one for those that have the same picture"
    near = [np.flatnonzero(np.bitwise_count(code ^ hashes).sum(1) <= LISTED_TWICE) for code in hashes]
    pairs = [(i, j) for i, own in enumerate(near) for j in own if i < j]
    return [families[n] for n in linked(len(families), pairs)]


def letterboxed(image, share=0.25):
    "Black bars above and below"
    w, h = image.size
    film = Image.new("RGB", (w, round(h * (1 + 2 * share))), "black")
    film.paste(image, (0, round(h * share)))
    return film


def framed(image):
    "A white edge all round"
    w, h = image.size
    frame = Image.new("RGB", (round(1.2 * w), round(1.2 * h)), "white")
    frame.paste(image, (round(0.1 * w), round(0.1 * h)))
    return frame


MOVED = {     # beside the project's list
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "letterboxed": letterboxed, "framed": framed}


# ---- texts

def of_text(text):
    "Method → codes of a text"
    prints = make_prints(text)
    drawn = np.full(64, 2**16 - 1, np.uint16) if prints.text is None else prints.text
    return {"ours": drawn, "exact words": number(prints.words.encode()), "exact": number(text.encode())}


def texts():
    "Headlines and posts, and their copies"
    said = []
    for name in ("clickbait_data.gz", "non_clickbait_data.gz"):
        with gzip.open(SHARED/"clickbait"/name, "rt", encoding="utf-8") as file:
            said += random.Random(SEED).sample([line.strip() for line in file if line.strip()], 3000)
    for name in ("Constraint_Train.csv", "Constraint_Val.csv"):
        with open(SHARED/"covid_fake_news"/name, encoding="utf-8") as file:
            said += random.Random(SEED).sample([row["tweet"] for row in csv.DictReader(file)], 2000)
    by_words = {normalise(text): text for text in said}
    words = [w for w in by_words if w.count(" ") >= 3]
    said = [by_words[w] for w in words]
    families = linked(len(words), near_texts(words, 0.5).tolist())

    def copies(i):
        for name in CORRUPTIONS["text"]:
            for severity in SEVERITIES:
                yield name, severity, of_text(corrupt("text", name, said[i], severity, str(i), SEED))

    def differ(others):
        held = np.stack(others)
        return lambda code: (code != held).mean(1)

    distances = dict.fromkeys(("ours", "exact words", "exact"), differ)
    about = f"{len(said):,} headlines and tweets (clickbait, covid_fake_news)"
    originals, families = [of_text(text) for text in said], [words[n] for n in families]
    return Kind(originals, families, copies, distances, "shingles", 250, about)


def linked(n, pairs):
    "Of each of n items, the lowest number that links lead to"
    root = list(range(n))

    def top(i):
        while root[i] != i: i = root[i]
        return i

    for i, j in pairs:
        a, b = sorted((top(i), top(j)))
        root[b] = a
    return [top(i) for i in range(n)]


# ---- sounds

SECONDS = 5


def say(i):
    "One of 100 made voices says something"
    voice, words = clips.identity(SEED, i % 100)["voice"], clips.dice(SEED, "memory", i)
    tracks = clips.sentence(voice, SECONDS, words)
    sound = clips.sing(tracks, voice, words)
    return (0.3 * sound / max(np.abs(sound).max(), 1e-9)).astype(np.float32)


def cut(share, n):
    "First and end of what is kept, at no whole step"
    first = round(0.37 * (1 - share) * n)
    return first, first + round(share * n)


KEPT = (0.9, 0.75, 0.6, 0.45, 0.3)     # share of a clip, for each severity of `cut`


def sounds(n=1000):
    "Made voices and their copies"
    said = [say(i) for i in range(n)]

    def copies(i):
        for severity, share in zip(SEVERITIES, KEPT):
            first, end = cut(share, len(said[i]))
            yield "cut", severity, {"ours": sound_print(said[i][first:end])}
        for name in CORRUPTIONS["audio"]:
            for severity in SEVERITIES:
                changed = corrupt("audio", name, said[i], severity, str(i), SEED)
                yield name, severity, {"ours": sound_print(changed[RATE // 30:])}      # between two steps

    originals = [{"ours": sound_print(sound)} for sound in said]
    length = 1 << (2 * len(originals[0]["ours"])).bit_length()

    def differ(others):
        held = np.stack([spectra(other, length) for other in others])
        def errors(sound): return least_errors(spectra(sound, length), held, max(LEAST_SOUND, len(sound) // 2))
        return errors      # a copy is never the longer one

    about = f"{n:,} made voices of {SECONDS} s"
    return Kind(originals, [str(i) for i in range(n)], copies, {"ours": differ}, "sound", 20, about)


# ---- videos

FRAMES, FILM = 8, 192      # of a clip, one a second; pixels of each side


def film(paths, moves):
    "A camera that moves over each of some pictures, from one place of it to another"
    frames = []
    for path, move in zip(paths, moves):
        image = open_image(path)
        w, h = image.size
        part = 0.75 * min(w, h)
        (x0, y0), (x1, y1) = move * (w - part, h - part)
        for t in np.linspace(0, 1, FRAMES // len(paths)):
            x, y = x0 + t * (x1 - x0), y0 + t * (y1 - y0)
            frames.append(np.asarray(image.resize((FILM, FILM), box=(x, y, x + part, y + part))))
    return np.stack(frames)


def of_frames(frames):
    "Method → codes of a clip"
    middle = Image.fromarray(frames[len(frames) // 2])
    phash = np.packbits(imagehash.phash(middle).hash).view(np.uint64)[None]
    one = as_words(making.pdq(middle)[0][:1])
    return {"ours": making.hash_frames(frames), "PDQ of one frame": one, "pHash of one frame": phash}


def videos(n=1000):
    "Camera moves over real pictures, and their copies"
    rng, files = np.random.default_rng(SEED), [path for _, path, _ in readable()]
    chosen = rng.permutation(len(files))[:2 * n].reshape(n, 2)
    moves = rng.random((n, 2, 2, 2))
    def filmed(i): return film([files[k] for k in chosen[i]], moves[i])      # not all clips in memory

    def copies(i):
        frames, times = filmed(i), np.arange(FRAMES, dtype=float)
        for severity, share in zip(SEVERITIES, KEPT):
            first, end = cut(share, FRAMES)
            yield "cut", severity, of_frames(frames[first:end])
            bars = [np.asarray(letterboxed(Image.fromarray(frame), 0.06 * severity)) for frame in frames]
            yield "letterboxed", severity, of_frames(np.stack(bars))
        for name in CORRUPTIONS["video"]:
            for severity in SEVERITIES:
                yield name, severity, of_frames(corrupt("video", name, (frames, times), severity, str(i), SEED)[0])

    def shares(others): return lambda frames: np.array([unlike(frames, other) for other in others])
    distances = {"ours": shares, "PDQ of one frame": hamming, "pHash of one frame": hamming}
    about = f"{n:,} camera moves over real pictures, {FRAMES} s each"
    originals = [of_frames(filmed(i)) for i in range(n)]
    return Kind(originals, [str(i) for i in range(n)], copies, distances, "vpdq", 20, about)


# ---- memes

MEMES = 100, 5      # templates, memes of each
READ = 40           # templates of which corrupted copies are read


def meme_texts(rng, n):
    "n different texts of a meme's two halves"
    rules, found = pilot.grammar("memes", rng.choices(["en", "fr"], [85, 15])[0]), {}
    folk = rng.choice(pilot.FOLK)
    while len(found) < n:
        kind = rng.choice(["named", "praise", "joke", "unkind", "friendly"])
        text = pilot.expand(rules, kind, rng, folk=f"{folk.title()}s")
        found[normalise(text)] = text.split("|")
    return list(found.values())


def draw_memes():
    "(template, words, picture) of made memes"
    n_templates, n_each = MEMES
    for i in range(n_templates):
        rng = random.Random(f"{SEED}/memory/{i}")
        scene = pilot.imagine_without_people(rng)
        for top, bottom in meme_texts(rng, n_each):
            painted = pilot.paint_meme(random.Random(f"{i}/{top}/{bottom}"), scene, f"memory/{i}", top, bottom)[0]
            yield i, f"{top} {bottom}", painted.convert("RGB")


def read(image):
    "The words in a picture, as the service reads them"
    return ocr_text(read_image(image)["lines"])


MEMES_SAID = f"{MEMES[0]} made templates with {MEMES[1]} memes each, read by the project's OCR"


def drawn_prints():
    "(template, words, picture, its prints, the words read in it) of made memes"
    for template, words, image in draw_memes():
        yield template, words, image, make_prints(image=image), read(image)


def same_template(memes):
    "(meme, meme) of one template with other words, both ways"
    return [(a, b) for a in memes for b in memes if a[0] == b[0] and normalise(a[1]) != normalise(b[1])]


NEAR = 48           # bits between pictures whose words are compared


def meme_copies(memes):
    "(copy, meme): the first meme of some templates, through each corruption at one severity after the other"
    for i, meme in enumerate(memes[::MEMES[1]][:READ]):
        for n, name in enumerate(CORRUPTIONS["vision"]):
            image = corrupt("vision", name, meme[2], SEVERITIES[(i + n) % 5], str(i), SEED)
            yield (*meme[:2], image, make_prints(image=image), read(image)), meme


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
LEAST = 0.02        # probability below which a curve ends


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
    steps = [step for step in steps if step[1] >= LEAST]
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



KINDS = {"picture": pictures, "text": texts, "sound": sounds, "video": videos}


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
