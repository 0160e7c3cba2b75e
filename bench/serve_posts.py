"Posts to ask a service about: titles and photographs, made from a seed"
import io

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

TASK, SEED = "fakeddit_recipe", 0      # the detector that is asked


def make_texts(n, seed=SEED):
    "Titles of 3 to 60 words, 11 in the middle, as those of Fakeddit: words of syllables, a few of them frequent. Every other title is fake, and eight of ten of its words are of a kind of their own"
    rng, language = np.random.default_rng(seed), np.random.default_rng(SEED)           # the same words, whatever is said with them
    syllables = [c + v for c in "bcdfghklmnprstvw" for v in ("a", "e", "i", "o", "u", "an", "er", "is", "ou")]
    words = ["".join(language.choice(syllables, language.integers(1, 4))) for _ in range(8000)]
    lengths = np.clip(np.round(np.exp(rng.normal(np.log(11), 0.55, n))), 3, 60).astype(int)
    kinds = np.repeat(np.arange(n) % 2, lengths) ^ (rng.random(lengths.sum()) < 0.2)   # of each word
    ranks = 2 * (rng.zipf(1.3, lengths.sum()) % 4000) + kinds
    starts = np.r_[0, lengths.cumsum()]
    return [" ".join(words[r] for r in ranks[a:b]) for a, b in zip(starts, starts[1:])]

def draw_photo(rng, warm):
    "JPEG of 480 to 960 pixels a side, about as many bytes as a photograph of that size: large shapes, small ones, grain; in warm light or in cold"
    w, h = (int(v) for v in rng.integers(480, 961, 2))
    image = Image.fromarray(rng.integers(0, 256, (h // 40, w // 40, 3), dtype=np.uint8)).resize((w, h), Image.Resampling.BICUBIC)
    d = ImageDraw.Draw(image)
    for _ in range(40):
        x, y, r = int(rng.integers(0, w)), int(rng.integers(0, h)), int(rng.integers(4, 90))
        d.ellipse((x, y, x + r, y + r), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    grain, light = rng.normal(0, 9, (h, w, 1)), np.array([40, 0, -40]) * (1 if warm else -1)
    out = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(image.filter(ImageFilter.SMOOTH)) + grain + light, 0, 255).astype("uint8")).save(out, "JPEG", quality=85)
    return out.getvalue()

def with_comment(jpeg, words):
    "The same picture with a comment in it: other bytes, so that no cache knows it"
    said = str(words).encode()
    return b"\xff\xd8\xff\xfe" + (len(said) + 2).to_bytes(2, "big") + said + jpeg[2:]

def make_posts(n, seed=SEED):
    "Posts with text and picture; no picture twice; every other one is fake, with fake words and in warm light"
    rng = np.random.default_rng(seed)
    return [dict(text=t, image=draw_photo(rng, i % 2)) for i, t in enumerate(make_texts(n, seed))]
