"""From the table to the manifest: Fakeddit's shape without pictures, and the sets that cost most a post

`python -m bench.scale_tables 1000000` measures this number of posts alone, a name of `WORST` that set alone. Each stage
runs in a process of its own, as its function and without its notebook."""
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from bench.scale import entry, exponent, measured
from multimodal_fakes.core import root, write_json

SIZES = (125_000, 250_000, 500_000)

SUBREDDITS = ["usnews", "theonion", "pareidolia", "subredditsimulator", "psbattle_artwork", "fakefacts"]
COLUMNS = ["author", "clean_title", "created_utc", "domain", "hasImage", "id", "image_url", "linked_submission_id",
           "num_comments", "score", "subreddit", "title", "upvote_ratio", "2_way_label", "3_way_label", "6_way_label"]
SPLITS = {"train": 0.8, "validate": 0.1, "test_public": 0.1}
WORDS = 30_000      # different ones
SAME = 0.02         # titles that stand there a second time


def make_titles(n, rng):
    "Titles of 3 to 17 words, few words often and many seldom, some titles twice"
    lengths = rng.integers(3, 18, n)
    words = (WORDS ** rng.random(lengths.sum())).astype(int)      # the logarithm of a rank is uniform, as in texts
    ends = lengths.cumsum()
    titles = [" ".join(f"w{w}" for w in words[end - k:end]) for end, k in zip(ends.tolist(), lengths.tolist())]
    for i in rng.choice(np.arange(1, n), int(SAME * n), replace=False).tolist(): titles[i] = titles[i - 1]
    return titles


def make_fakeddit(home, rng, n):
    "Fakeddit's three tables with n posts, none of which has a picture"
    tables = home/"Datasets/fakeddit/multimodal_only_samples"
    tables.mkdir(parents=True)
    begin = 0
    for split, share in SPLITS.items():
        size = round(share * n)
        kinds = rng.integers(0, 6, size).tolist()
        with open(tables/f"multimodal_{split}.tsv", "w") as f:
            f.write("\t".join(COLUMNS) + "\n")
            for i, (kind, title) in enumerate(zip(kinds, make_titles(size, rng)), begin):
                begins = f"someone{i % 9973}\t{title}\t1507681490.0\ti.example.org\tFalse\t{i:07x}"
                ends = f"{SUBREDDITS[kind]}\t{title}\t0.75\t{int(kind == 0)}\t{min(kind, 1)}\t{kind}"
                f.write(f"{begins}\t\t\t28\t24\t{ends}\n")
        begin += size

CONF = dict(
    title="Made", licence="made here", obtain="made here", files=[dict(path="posts.tsv")],
    id="id", text=["text"], lang="en",
    labels=dict(category=dict(column="label")))


def write_set(folder, rows, **conf):
    "A dataset of posts: id, text, label and perhaps picture"
    (folder/"Datasets/worst").mkdir(parents=True)
    (folder/"conf/dataset").mkdir(parents=True)
    write_json(folder/"conf/dataset/worst.yaml", dict(name="worst") | CONF | conf)      # JSON is YAML
    with open(folder/"Datasets/worst/posts.tsv", "w") as f:
        f.write("id\ttext\tlabel\tpicture\tsource\n")
        for i, row in enumerate(rows): f.write("\t".join(map(str, (i, *row))) + "\n")


def near_texts(folder, rng, n=50_000):
    "One template of twenty words with two that differ"
    words = " ".join(f"word{i}" for i in range(20))
    write_set(folder, ((f"{words} n{i} m{i % 977}", i % 5, "", "") for i in range(n)))


def same_pictures(folder, rng, n=20_000):
    "Pictures that differ in a few pixels, each in another file"
    write_set(folder, ((f"w{i} v{i} u{i} t{i}", i % 5, f"{i}.png", "") for i in range(n)), image="{picture}")
    pixels = np.asarray(Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 40).convert("RGB")).copy()
    for i in range(n):
        pixels[i % 64, i // 64 % 64] = rng.integers(0, 256, 3)
        Image.fromarray(pixels).save(folder/f"Datasets/worst/{i}.png")


def one_group(folder, rng, n=100_000):
    "Six posts of ten are of one source"
    rows = ((title, i % 5, "", "big" if i % 10 < 6 else i) for i, title in enumerate(make_titles(n, rng)))
    write_set(folder, rows, group=["source"])


def many_classes(folder, rng, n=100_000):
    "A thousand classes"
    write_set(folder, ((title, f"class{i % 1000}", "", "") for i, title in enumerate(make_titles(n, rng))))


def long_texts(folder, rng, n=1_000):
    "Texts of 20,000 words"
    words = np.array([f"w{i}" for i in range(WORDS)])
    write_set(folder, ((" ".join(rng.choice(words, 20_000)), i % 5, "", "") for i in range(n)))


WORST = {make.__name__: make for make in (near_texts, same_pictures, one_group, many_classes, long_texts)}
LIMITS = dict(cpu_s=("CPU s", 120), peak_gb=("GB", 2))      # of a worst case


def stages_of(home, dataset, conf):
    "CPU seconds and peak memory of preparing a dataset, and of its manifest"
    prepare = f"from multimodal_fakes.data.prepare import prepare_all; prepare_all({home!r}, {home!r}, [{dataset!r}]"
    ocr = f"from multimodal_fakes.data.ocr import read_all; read_all({home!r}, {home!r})"
    read = (f"from multimodal_fakes.data.manifest import read_manifest; "
            f"print(len({{row['id']: row['group'] for row in read_manifest({home!r}, ('id', 'group'))}}))")
    commands = dict(prepare=f"{prepare}, conf_folder={str(conf)!r})", ocr=ocr, groups=read)
    return {stage: measured([sys.executable, "-c", command], cwd=root()) for stage, command in commands.items()}


def cost_of(make, dataset):
    "What a set costs that is made in a temporary folder"
    with tempfile.TemporaryDirectory(prefix="scale_") as folder:
        home = Path(folder)
        make(home, np.random.default_rng(0))
        own = home/"conf/dataset"
        return stages_of(folder, dataset, own if own.is_dir() else root()/"conf/dataset")


def entries(what, costs, limits=None):
    "A set's figures"
    for stage, cost in costs.items():
        for key, (unit, limit) in (limits or {"cpu_s": ("CPU s", None), "peak_gb": ("GB", 3)}).items():
            yield entry(f"{stage}, {what}", cost[key], unit, limit)


def run(asked=()):
    "Sizes with their exponents, and the worst cases; or what is asked for"
    sizes = [int(word) for word in asked if word.isdigit()] if asked else SIZES
    costs = {n: cost_of(partial(make_fakeddit, n=n), "fakeddit") for n in sizes}
    for n, cost in costs.items(): yield from entries(f"{n:,} posts of Fakeddit's shape", cost)
    for stage in costs[sizes[0]] if len(sizes) > 1 else ():
        grows = exponent(sizes, [costs[n][stage]["cpu_s"] for n in sizes])
        yield entry(f"{stage}, growth of CPU seconds", grows, "exponent", 1.05)
    for name in [word for word in asked if word in WORST] if asked else WORST:
        yield from entries(f"worst case {name}", cost_of(WORST[name], "worst"), LIMITS)


if __name__ == "__main__":
    for figure in run(sys.argv[1:]): print(f"{figure['name']:60} {figure['ours']:10.3f} {figure['unit']}", flush=True)
