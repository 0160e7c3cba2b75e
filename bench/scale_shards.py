"""What the stage shard costs on posts in Fakeddit's shape, without pictures: all of it, again with nothing to do, with
a dataset more. Each run is a process of its own: `python -m bench.scale_shards PROJECT`."""
import random
import shutil
import sys
import tempfile
from pathlib import Path

from bench.scale import entry, exponent, measured
from multimodal_fakes.core import root
from multimodal_fakes.data.manifest import write_manifest
from multimodal_fakes.data.shard import shard_all

SIZES = 125_000, 250_000, 500_000, 1_000_000     # posts
MORE = 20_000                                    # posts of the dataset that comes later
WORDS = 20_000                                   # different ones
KINDS = 6                                        # classes of `6_way_label`
TASK = {"field": "fake", "datasets": ["fakeddit"], "modalities": ["text"], "tests": []}
MINUTES, GIGABYTES, GROWTH = 2.5, 3.0, 1.05      # that are allowed for a million posts, and the exponent


def posts(n, name, rng):
    "Rows of the manifest: eight tenths to train on, a label for each, titles of 4 to 14 words"
    for i in range(n):
        kind, split = rng.randrange(KINDS), ("train", "val", "test")[max(0, i % 10 - 7)]
        text = " ".join(f"word{rng.randrange(WORDS)}" for _ in range(rng.randint(4, 14)))
        labels = {"2_way_label": int(kind == 0), "6_way_label": kind, "3_way_label": 0, "subreddit": f"sub{kind}"}
        meta = {"lang": "en", "file": "multimodal_train.tsv", "row": i}
        yield {"id": f"{name}_{split}_{i:07x}", "dataset": name, "split": split, "text_raw": text, "image_path": None,
               "audio_path": None, "video_path": None, "labels_raw": labels, "group": f"{name}{i}", "meta": meta}


def project(home, counts):
    "What the stage ocr would have left of some datasets, each with Fakeddit's configuration"
    conf = (root()/"conf/dataset/fakeddit.yaml").read_text(encoding="utf-8")
    (home/"conf/dataset").mkdir(parents=True, exist_ok=True)
    for name in counts:
        (home/f"conf/dataset/{name}.yaml").write_text(conf.replace("name: fakeddit", f"name: {name}"), encoding="utf-8")
    rng = random.Random(0)
    write_manifest(home/"Step_2", (row for name, n in counts.items() for row in posts(n, name, rng)))


def stage(home):
    "CPU seconds and gigabytes of the stage, and the tars that it packed"
    before = {path.name for path in (home/".cache/shards").glob("*.tar")}
    cost = measured([sys.executable, "-m", "bench.scale_shards", home], cwd=root())
    return cost, len({path.name for path in (home/".cache/shards").glob("*.tar")} - before)


def run(sizes=SIZES):
    "The entries of this part"
    costs, home = [], None
    for n in sizes:
        if home: shutil.rmtree(home)
        home = Path(tempfile.mkdtemp(prefix="scale_"))
        project(home, {"fakeddit": n})
        cost, n_tars = stage(home)
        costs.append(cost)
        share = n / 1e6
        yield entry(f"shard, {n:,} posts without pictures", cost["cpu_s"], "CPU s", max(60 * MINUTES * share, 20))
        yield entry(f"shard, {n:,} posts without pictures, {n_tars} tars", cost["peak_gb"], "GB", GIGABYTES)
    yield entry("shard, growth of CPU time", exponent(sizes, [cost["cpu_s"] for cost in costs]), "", GROWTH)
    yield entry("shard, growth of memory", exponent(sizes, [cost["peak_gb"] for cost in costs]), "", GROWTH)
    cost, packed = stage(home)
    yield entry(f"shard, {n:,} posts again", cost["cpu_s"], "CPU s", peer=costs[-1]["cpu_s"])
    yield entry(f"shard, {n:,} posts again", packed, "tars packed", 0)
    project(home, {"fakeddit": n, "later": MORE})
    cost, packed = stage(home)
    yield entry(f"shard, a dataset of {MORE:,} posts more", packed, "tars packed", 3)
    shutil.rmtree(home)


if __name__ == "__main__":
    shard_all(sys.argv[1], sys.argv[1], tasks={"posts": TASK})
