"""Reading the text in pictures: ours, with rapidocr's defaults beside it in the same run.

The pictures are drawn here from a seed: outlined captions in several fonts and sizes over noisy scenes, some slanted, some in
French, all through JPEG; and screenshots, wider, with small print. Errors are counted on letters and digits.
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

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from tqdm import tqdm

from multimodal_fakes.data.ocr import engine, ocr_text, read_lines, reading_order, reading_pool

FONTS = Path(matplotlib.get_data_path())/"fonts/ttf"
CAPTIONS = ["DejaVuSans-Bold", "DejaVuSans-Bold", "DejaVuSerif-Bold", "DejaVuSansMono-Bold", "STIXGeneralBol", "DejaVuSans", "STIXGeneral"]
WORDS = {
    "en": "the a my your when nobody everybody monday coffee meeting garden neighbour train budget holiday weather kitchen window printer answer question finally again "
          "always never before after without until seven nine 12 2024 cat sofa keyboard update password weekend umbrella recipe mountain river library ticket".split(),
    "fr": "le la mon votre quand personne réunion café été fenêtre forêt voilà déjà après où élève château garçon gâteau hôtel leçon modèle numéro problème théâtre à répondre chaque".split()}


def say(rng, lang, n): return " ".join(rng.choice(WORDS[lang]) for _ in range(n))


def backdrop(rng, w, h):
    "A blurred field of colours, shapes and camera noise"
    noise = np.random.default_rng(rng.randrange(2**31))
    image = Image.fromarray(noise.integers(30, 230, (5, 6, 3), dtype=np.uint8)).resize((w, h), Image.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, s, t = rng.randrange(w), rng.randrange(h), rng.randrange(20, 120), rng.uniform(0.5, 1.5)
        getattr(draw, rng.choice(["ellipse", "rectangle"]))((x, y, x + s, y + s * t), fill=tuple(rng.randrange(256) for _ in range(3)))
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(1)), float) + noise.normal(0, 8, (h, w, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def caption(draw, text, font, w, y, upwards):
    "Centred lines that fit, below or above `y`"
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= w * 0.94 or not lines[-1]: lines[-1] = longer
        else: lines.append(word)
    step = round(font.size * 1.18)
    for i, line in enumerate(lines):
        draw.text((w / 2, y + (i - len(lines) * upwards) * step), line, "white", font, anchor="ma", stroke_width=max(1, font.size // 12), stroke_fill="black")


def as_jpeg(image, quality):
    f = io.BytesIO(); image.save(f, "JPEG", quality=quality); return f.getvalue()


def meme(i, lang="en"):
    "A picture 512 pixels wide with two captions: bytes, text"
    rng = random.Random(f"{lang}/{i}")
    w, h = 512, rng.choice([384, 448, 512, 600, 640])
    image = backdrop(rng, w, h)
    draw, font = ImageDraw.Draw(image), ImageFont.truetype(str(FONTS/f"{rng.choice(CAPTIONS)}.ttf"), rng.choice([13, 16, 20, 26, 34, 44]))
    top, bottom = say(rng, lang, rng.randint(3, 8)), say(rng, lang, rng.randint(3, 8))
    if rng.random() < 0.6: top, bottom = top.upper(), bottom.upper()
    caption(draw, top, font, w, 10, False)
    caption(draw, bottom, font, w, h - 12, True)
    return as_jpeg(image.rotate(rng.uniform(-4, 4), Image.BICUBIC), rng.choice([25, 40, 60, 75, 90])), f"{top} {bottom}"


def screenshot(i):
    "A picture 1200 pixels wide with five lines of small print: bytes, text"
    rng = random.Random(f"screenshot/{i}")
    image = backdrop(rng, 1200, 800)
    draw, font = ImageDraw.Draw(image), ImageFont.truetype(str(FONTS/"DejaVuSans.ttf"), rng.choice([18, 22, 28]))
    lines = [say(rng, "en", 7) for _ in range(5)]
    for k, line in enumerate(lines): draw.text((60, 60 + k * 130), line, "white", font, stroke_width=2, stroke_fill="black")
    return as_jpeg(image, 80), " ".join(lines)


def edits(a, b):
    "Levenshtein distance"
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        new = [i]
        for j, y in enumerate(b, 1): new.append(min(row[j] + 1, new[-1] + 1, row[j - 1] + (x != y)))
        row = new
    return row[-1]


def error_rate(read, truth):
    "Character error rate on letters and digits, case ignored"
    letters = lambda s: re.sub(r"[\W_]", "", s).lower()
    return sum(edits(letters(r), letters(t)) for r, t in zip(read, truth)) / sum(len(letters(t)) for t in truth)


def with_defaults(paths):
    "rapidocr as it comes, one picture after the other: texts, seconds, processor seconds. Its boxes are put into our reading order, which helps it"
    from rapidocr import RapidOCR
    reader = RapidOCR(params={"Global.log_level": "critical"})
    reader(str(paths[0]))
    texts, began, cpu = [], time.perf_counter(), time.process_time()
    for path in tqdm(paths, desc="rapidocr's defaults", ncols=90):
        found = reader(str(path))
        texts.append([] if found.boxes is None else [found.txts[k] for k in reading_order(np.asarray(found.boxes, float))])
    return [" ".join(t) for t in texts], time.perf_counter() - began, time.process_time() - cpu


def with_ours(paths):
    """Our pool: texts, seconds, processor seconds. Both clocks start when the models are loaded and a first picture has been read (here one in each process);
    the processor's time includes the start of the processes"""
    children = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    pool, read, marks, cpu = reading_pool(), {}, [], children()
    for (i, _), ocr, error in tqdm(pool.imap(list(enumerate(paths))), desc="ours", total=len(paths), ncols=90):
        assert not error, error
        read[i] = ocr_text(ocr["lines"])
        marks.append(time.perf_counter())
    n = min(pool.n_workers, len(paths) - 1)
    return [read[i] for i in range(len(paths))], (marks[-1] - marks[n - 1]) * len(paths) / (len(paths) - n), children() - cpu


def grid(sets, sides=(256, 320, 384, 512, 640, 768)):
    "CPU milliseconds and error rate for several sides of detection, in this process"
    table = {}
    for side in sides:
        engine(side)
        for name, data in sets.items():
            began = time.process_time()
            read = [ocr_text(read_lines(picture, side)["lines"]) for picture, _ in data]
            table[name, side] = 1000 * (time.process_time() - began) / len(data), error_rate(read, [t for _, t in data])
    return table


def machine():
    "Processor and cores"
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{model[1] if model else os.uname().machine}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} before"


def entry(name, ours, peer, unit, higher, data, where):
    return {"name": name, "ours": round(ours, 4), "peer": round(peer, 4), "ratio": round(ours / peer, 3) if peer else None, "unit": unit, "higher_is_better": higher,
            "command": "python -m bench.ocr", "machine": where, "data": data}


def run(n=60) -> list[dict]:
    "Speed and error rate of ours and of rapidocr's defaults on the same pictures, in this order in one process"
    where, entries = machine(), []
    sets = {"60 captioned pictures, 512 px wide, drawn from a seed": [meme(i) for i in range(n)],
            "20 of them in French": [meme(i, "fr") for i in range(n // 3)],
            "6 screenshots, 1200 px wide, small print": [screenshot(i) for i in range(6)]}
    with tempfile.TemporaryDirectory() as d:
        for k, (name, data) in enumerate(sets.items()):
            paths, truth = [Path(d)/f"{k}_{i}.jpg" for i in range(len(data))], [t for _, t in data]
            for path, (picture, _) in zip(paths, data): path.write_bytes(picture)
            theirs, their_seconds, their_cpu = with_defaults(paths)
            ours, our_seconds, our_cpu = with_ours(paths)
            if k == 0:
                entries.append(entry("OCR speed against rapidocr's defaults", len(data) / our_seconds, len(data) / their_seconds, "images/s", True, name, where))
                entries.append(entry("OCR processor time", our_cpu / len(data), their_cpu / len(data), "core seconds per image", False, name, where))   # holds on a busy machine too
            entries.append(entry(f"OCR character error rate, {name.split(',')[0]}", error_rate(ours, truth), error_rate(theirs, truth), "errors per letter", False, name, where))
    return entries


def main():
    parser = argparse.ArgumentParser(prog="python -m bench.ocr", description=run.__doc__)
    parser.add_argument("--grid", action="store_true", help="how speed and errors depend on the side that detection sees")
    if parser.parse_args().grid:
        for (name, side), (ms, cer) in grid({"captions": [meme(i) for i in range(30)], "screenshots": [screenshot(i) for i in range(6)]}).items():
            print(f"{name:12} side {side:4}  {ms:5.0f} ms of one core  error rate {cer:.4f}")
    else:
        for e in run(): print(f"{e['name']:40} {e['ours']:8.4f} {e['peer']:8.4f}  ratio {e['ratio']}  {e['unit']}; {e['data']}; {e['machine']}")


if __name__ == "__main__": main()
