"Posts to ask a service about: titles and photographs, made from a seed"
import io

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

TASK, SEED = "fakeddit_recipe", 0      # the detector that is asked
CONSONANTS = "bcdfghklmnprstvw"
VOWELS = ("a", "e", "i", "o", "u", "an", "er", "is", "ou")


def make_words(n=8000):
    "Words of one to three syllables, the same whatever is said with them"
    rng = np.random.default_rng(SEED)
    syllables = [c + v for c in CONSONANTS for v in VOWELS]
    return ["".join(rng.choice(syllables, rng.integers(1, 4))) for _ in range(n)]

def make_texts(n, seed=SEED):
    """Titles of 3 to 60 words, 11 in the middle, as those of Fakeddit: words of syllables, a few of them frequent.

    Every other title is fake, and eight of ten of its words are of a kind of their own."""
    rng = np.random.default_rng(seed)
    words = make_words()
    lengths = np.clip(np.round(np.exp(rng.normal(np.log(11), 0.55, n))), 3, 60).astype(int)
    total = lengths.sum()
    flipped = rng.random(total) < 0.2
    kinds = np.repeat(np.arange(n) % 2, lengths) ^ flipped      # of each word
    ranks = 2 * (rng.zipf(1.3, total) % 4000) + kinds
    starts = np.r_[0, lengths.cumsum()]
    drawn = [words[rank] for rank in ranks]
    return [" ".join(drawn[a:b]) for a, b in zip(starts, starts[1:])]

def draw_shape(rng, draw, w, h):
    "A disc somewhere in the picture"
    x = int(rng.integers(0, w))
    y = int(rng.integers(0, h))
    r = int(rng.integers(4, 90))
    colour = rng.integers(0, 256, 3).tolist()
    draw.ellipse((x, y, x + r, y + r), fill=tuple(colour))

def draw_photo(rng, warm):
    """JPEG of 480 to 960 pixels a side, about as many bytes as a photograph of that size.

    Large shapes, small ones, grain; in warm light or in cold."""
    w, h = rng.integers(480, 961, 2).tolist()
    ground = rng.integers(0, 256, (h // 40, w // 40, 3), dtype=np.uint8)
    image = Image.fromarray(ground).resize((w, h), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        draw_shape(rng, draw, w, h)
    grain = rng.normal(0, 9, (h, w, 1))
    light = np.array([40, 0, -40]) * (1 if warm else -1)
    pixels = np.asarray(image.filter(ImageFilter.SMOOTH)) + grain + light
    out = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype("uint8")).save(out, "JPEG", quality=85)
    return out.getvalue()

def with_comment(jpeg, words):
    "The same picture with a comment in it: other bytes, so that no cache knows it"
    comment = str(words).encode()
    length = (len(comment) + 2).to_bytes(2, "big")
    return b"\xff\xd8\xff\xfe" + length + comment + jpeg[2:]

def make_posts(n, seed=SEED):
    "Posts with text and picture; no picture twice; every other one is fake, with fake words and in warm light"
    rng = np.random.default_rng(seed)
    texts = make_texts(n, seed)
    return [dict(text=text, image=draw_photo(rng, i % 2)) for i, text in enumerate(texts)]
