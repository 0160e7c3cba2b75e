"""Reading the text in pictures: ours, with rapidocr's defaults beside it in the same run.

The pictures are drawn here from a seed: outlined captions in several fonts and sizes over noisy scenes, some slanted,
some in French, all through JPEG; and screenshots, wider, with small print. Errors are counted on letters and digits.
"""
import argparse
import io
import os
import random
import re
import resource
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from tqdm import tqdm

from multimodal_fakes.data.ocr import engine, ocr_text, read_lines, reading_order, readings
from multimodal_fakes.data.spread import capacity

FONTS = Path(matplotlib.get_data_path())/"fonts/ttf"
CAPTIONS = [
    "DejaVuSans-Bold",
    "DejaVuSans-Bold",
    "DejaVuSerif-Bold",
    "DejaVuSansMono-Bold",
    "STIXGeneralBol",
    "DejaVuSans",
    "STIXGeneral",
]
ENGLISH = """
the a my your when nobody everybody monday coffee meeting garden neighbour train budget holiday weather kitchen window
printer answer question finally again always never before after without until seven nine 12 2024 cat sofa keyboard
update password weekend umbrella recipe mountain river library ticket
"""
FRENCH = """
le la mon votre quand personne réunion café été fenêtre forêt voilà déjà après où élève château garçon gâteau hôtel
leçon modèle numéro problème théâtre à répondre chaque
"""
WORDS = {"en": ENGLISH.split(), "fr": FRENCH.split()}


def say(rng, lang, n):
    "So many words by chance"
    return " ".join(rng.choice(WORDS[lang]) for _ in range(n))


def draw_shape(rng, draw, w, h):
    "An ellipse or a rectangle somewhere in the picture"
    x = rng.randrange(w)
    y = rng.randrange(h)
    width = rng.randrange(20, 120)
    height = width * rng.uniform(0.5, 1.5)
    shape = rng.choice(["ellipse", "rectangle"])
    colour = tuple(rng.randrange(256) for _ in range(3))
    getattr(draw, shape)((x, y, x + width, y + height), fill=colour)


def backdrop(rng, w, h):
    "A blurred field of colours, shapes and camera noise"
    noise = np.random.default_rng(rng.randrange(2**31))
    colours = noise.integers(30, 230, (5, 6, 3), dtype=np.uint8)
    image = Image.fromarray(colours).resize((w, h), Image.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        draw_shape(rng, draw, w, h)
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(1)), float)
    pixels = blurred + noise.normal(0, 8, (h, w, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def wrap(text, font, w):
    "Lines that fit into the width"
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= w * 0.94 or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def caption(draw, text, font, w, y, upwards):
    "Centred lines that fit, below or above `y`"
    lines = wrap(text, font, w)
    step = round(font.size * 1.18)
    top = y - len(lines) * step if upwards else y
    outline = dict(stroke_width=max(1, font.size // 12), stroke_fill="black")
    for i, line in enumerate(lines):
        draw.text((w / 2, top + i * step), line, "white", font, anchor="ma", **outline)


def as_jpeg(image, quality):
    "Its bytes"
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def font_of(name, size):
    "A font that comes with matplotlib"
    return ImageFont.truetype(str(FONTS/f"{name}.ttf"), size)


def meme(i, lang="en"):
    "A picture 512 pixels wide with two captions: bytes, text"
    rng = random.Random(f"{lang}/{i}")
    w = 512
    h = rng.choice([384, 448, 512, 600, 640])
    image = backdrop(rng, w, h)
    draw = ImageDraw.Draw(image)
    font = font_of(rng.choice(CAPTIONS), rng.choice([13, 16, 20, 26, 34, 44]))
    top = say(rng, lang, rng.randint(3, 8))
    bottom = say(rng, lang, rng.randint(3, 8))
    if rng.random() < 0.6:
        top = top.upper()
        bottom = bottom.upper()
    caption(draw, top, font, w, 10, False)
    caption(draw, bottom, font, w, h - 12, True)
    slanted = image.rotate(rng.uniform(-4, 4), Image.BICUBIC)
    quality = rng.choice([25, 40, 60, 75, 90])
    return as_jpeg(slanted, quality), f"{top} {bottom}"


def screenshot(i):
    "A picture 1200 pixels wide with five lines of small print: bytes, text"
    rng = random.Random(f"screenshot/{i}")
    image = backdrop(rng, 1200, 800)
    draw = ImageDraw.Draw(image)
    font = font_of("DejaVuSans", rng.choice([18, 22, 28]))
    lines = [say(rng, "en", 7) for _ in range(5)]
    for k, line in enumerate(lines):
        draw.text((60, 60 + k * 130), line, "white", font, stroke_width=2, stroke_fill="black")
    return as_jpeg(image, 80), " ".join(lines)


def edits(a, b):
    "Levenshtein distance"
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        new = [i]
        for j, y in enumerate(b, 1):
            replaced = row[j - 1] + (x != y)
            new.append(min(row[j] + 1, new[-1] + 1, replaced))
        row = new
    return row[-1]


def letters(text):
    "Letters and digits only, in lower case"
    return re.sub(r"[\W_]", "", text).lower()


def error_rate(read, truth):
    "Character error rate on letters and digits, case ignored"
    errors = sum(edits(letters(r), letters(t)) for r, t in zip(read, truth))
    return errors / sum(len(letters(t)) for t in truth)


class Reading(NamedTuple):
    "What a reader read, and what it took"
    texts: list         # of each picture
    seconds: float      # by the clock
    cpu_seconds: float  # of processors


def with_defaults(paths):
    """rapidocr as it comes, one picture after the other.

    Its boxes are put into our reading order, which helps it."""
    from rapidocr import RapidOCR
    reader = RapidOCR(params={"Global.log_level": "critical"})
    reader(str(paths[0]))
    texts = []
    began = time.perf_counter()
    cpu_began = time.process_time()
    for path in tqdm(paths, desc="rapidocr's defaults", ncols=90):
        result = reader(str(path))
        order = [] if result.boxes is None else reading_order(np.asarray(result.boxes, float))
        texts.append([result.txts[k] for k in order])
    seconds = time.perf_counter() - began
    cpu_seconds = time.process_time() - cpu_began
    return Reading([" ".join(words) for words in texts], seconds, cpu_seconds)


def children_seconds():
    "Processor seconds of all child processes that have ended"
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage[:2])


def with_ours(paths):
    """Our pool, every picture.

    Both clocks start when the models are loaded and a first picture has been read (here one in each process);
    the processor's time includes the start of the processes."""
    texts = {}
    marks = []
    cpu_began = children_seconds()
    numbered = list(enumerate(paths))
    for (i, _), ocr, error in tqdm(readings(numbered), desc="ours", total=len(paths), ncols=90):
        assert not error, error
        texts[i] = ocr_text(ocr["lines"])
        marks.append(time.perf_counter())
    n_first = min(capacity(), len(paths) - 1)
    timed = marks[-1] - marks[n_first - 1]
    seconds = timed * len(paths) / (len(paths) - n_first)
    cpu_seconds = children_seconds() - cpu_began
    return Reading([texts[i] for i in range(len(paths))], seconds, cpu_seconds)


def grid(sets, sides=(256, 320, 384, 512, 640, 768)):
    "CPU milliseconds and error rate for several sides of detection, in this process"
    table = {}
    for side in sides:
        engine(side)
        for name, pictures in sets.items():
            began = time.process_time()
            read = [ocr_text(read_lines(picture, side)["lines"]) for picture, _ in pictures]
            ms = 1000 * (time.process_time() - began) / len(pictures)
            table[name, side] = ms, error_rate(read, [text for _, text in pictures])
    return table


def machine():
    "Processor, cores and load"
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    name = model[1] if model else os.uname().machine
    return f"{name}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} before"


def entry(name, ours, peer, unit, higher, data, where):
    "One figure as results.json keeps it"
    return dict(
        name=name,
        ours=round(ours, 4),
        peer=round(peer, 4),
        ratio=round(ours / peer, 3) if peer else None,
        unit=unit,
        higher_is_better=higher,
        command="python -m bench.ocr",
        machine=where,
        data=data,
    )


def write_pictures(pictures, folder):
    "A file for each"
    folder.mkdir()
    paths = [folder/f"{i}.jpg" for i in range(len(pictures))]
    for path, (jpeg, _) in zip(paths, pictures):
        path.write_bytes(jpeg)
    return paths


def speed(ours, theirs, n, data, where):
    "Figures of speed; those of the processor's time hold on a busy machine too"
    rates = (n / ours.seconds, n / theirs.seconds)
    costs = (ours.cpu_seconds / n, theirs.cpu_seconds / n)
    return [
        entry("OCR speed against rapidocr's defaults", *rates, "images/s", True, data, where),
        entry("OCR processor time", *costs, "core seconds per image", False, data, where),
    ]


def run(n=60) -> list[dict]:
    "Speed and error rate of ours and of rapidocr's defaults on the same pictures, in this order in one process"
    where = machine()
    entries = []
    sets = {
        "60 captioned pictures, 512 px wide, drawn from a seed": [meme(i) for i in range(n)],
        "20 of them in French": [meme(i, "fr") for i in range(n // 3)],
        "6 screenshots, 1200 px wide, small print": [screenshot(i) for i in range(6)],
    }
    with tempfile.TemporaryDirectory() as d:
        for k, (name, pictures) in enumerate(sets.items()):
            paths = write_pictures(pictures, Path(d)/str(k))
            theirs = with_defaults(paths)
            ours = with_ours(paths)
            if k == 0:
                entries += speed(ours, theirs, len(pictures), name, where)
            truth = [text for _, text in pictures]
            rates = (error_rate(ours.texts, truth), error_rate(theirs.texts, truth))
            title = f"OCR character error rate, {name.split(',')[0]}"
            entries.append(entry(title, *rates, "errors per letter", False, name, where))
    return entries


def print_grid():
    "The table of `grid` for both kinds of picture"
    sets = {
        "captions": [meme(i) for i in range(30)],
        "screenshots": [screenshot(i) for i in range(6)],
    }
    for (name, side), (ms, cer) in grid(sets).items():
        print(f"{name:12} side {side:4}  {ms:5.0f} ms of one core  error rate {cer:.4f}")


def main():
    parser = argparse.ArgumentParser(prog="python -m bench.ocr", description=run.__doc__)
    about_grid = "how speed and errors depend on the side that detection sees"
    parser.add_argument("--grid", action="store_true", help=about_grid)
    if parser.parse_args().grid:
        print_grid()
        return
    for e in run():
        figures = f"{e['ours']:8.4f} {e['peer']:8.4f}  ratio {e['ratio']}"
        print(f"{e['name']:40} {figures}  {e['unit']}; {e['data']}; {e['machine']}")


if __name__ == "__main__":
    main()
