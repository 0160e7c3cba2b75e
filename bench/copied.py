"""What copies are made of for `bench.memory_copies`: real pictures and texts, made voices, clips and memes

Real are the pictures of clothing, fashion and mediaeval, and the texts of clickbait and covid_fake_news. Sounds are
made voices, clips are camera moves over real pictures, memes are drawn by the maker of the pilots."""
import csv
import gzip
import hashlib
import random
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image

from bench.quality_sets import DATASETS
from multimodal_fakes.data.duplicates import near_texts, normalise
from multimodal_fakes.data.ocr import ocr_text, read_image
from multimodal_fakes.detect.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from multimodal_fakes.media import RATE, MediaError, open_image
from multimodal_fakes.memory.copies import LEAST_SOUND, least_errors, spectra, unlike
from multimodal_fakes.memory.prints import QUALITY, hash_frames, make_prints, pdq, sound_print
from multimodal_fakes.pilots import clips, pilot

SEED = 0


class Kind(NamedTuple):
    "What is measured of one kind of part"
    originals:list        # prints, each a dict: method → codes
    families:list         # name of each; of one family some may be copies, so they are never held against each other
    copies:object         # function of a number: yields (corruption, severity, prints)
    distances:dict        # method → function of the codes of originals: a function of codes, its distances to each
    curve:str             # name of that of the method "ours"
    chosen:int            # originals of a half whose copies are made
    data:str


def hamming(others, first=(0,)):
    "A function: least bits between rows (k, W) of uint64 and the first ones of each of some items"
    held = np.stack(others)[:, list(first)]
    return lambda rows: np.bitwise_count(rows[:, None, None] ^ held[None]).sum(3, dtype=int).min((0, 2))


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
        with open(DATASETS/name/table, encoding="utf-8") as file:
            for row in csv.DictReader(file): yield f"{name} {row[column]}", DATASETS/name/row["image"]
    with open(DATASETS/"mediaeval/manifest.csv", encoding="utf-8") as file:
        seen = {row["image"]: row["event"] for row in csv.DictReader(file)}
    for path, event in seen.items(): yield f"mediaeval {event}", DATASETS/"mediaeval"/path


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
        with gzip.open(DATASETS/"clickbait"/name, "rt", encoding="utf-8") as file:
            said += random.Random(SEED).sample([line.strip() for line in file if line.strip()], 3000)
    for name in ("Constraint_Train.csv", "Constraint_Val.csv"):
        with open(DATASETS/"covid_fake_news"/name, encoding="utf-8") as file:
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
    one = as_words(pdq(middle)[0][:1])
    return {"ours": hash_frames(frames), "PDQ of one frame": one, "pHash of one frame": phash}


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


def meme_copies(memes):
    "(copy, meme): the first meme of some templates, through each corruption at one severity after the other"
    for i, meme in enumerate(memes[::MEMES[1]][:READ]):
        for n, name in enumerate(CORRUPTIONS["vision"]):
            image = corrupt("vision", name, meme[2], SEVERITIES[(i + n) % 5], str(i), SEED)
            yield (*meme[:2], image, make_prints(image=image), read(image)), meme


KINDS = {"picture": pictures, "text": texts, "sound": sounds, "video": videos}
