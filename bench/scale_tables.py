"""From the table to the manifest at the published sets' own size: sets made from a seed, CPU seconds and peak memory

`python -m bench scale tables` measures Fakeddit's shape without pictures at 125,000 to 500,000 posts and the worst cases;
`python -m bench scale tables 1000000` these numbers of posts instead."""
import numpy as np

SUBREDDITS = {"usnews": 0, "theonion": 1, "pareidolia": 2, "subredditsimulator": 3, "psbattle_artwork": 4, "fakefacts": 5}
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


def make_fakeddit(folder, n, seed=0):
    "Fakeddit's three tables with n posts, none of which has a picture"
    rng, names = np.random.default_rng(seed), list(SUBREDDITS)
    tables = folder/"fakeddit/multimodal_only_samples"
    tables.mkdir(parents=True)
    begin = 0
    for split, share in SPLITS.items():
        size = round(share * n)
        kinds = rng.integers(0, 6, size).tolist()
        with open(tables/f"multimodal_{split}.tsv", "w") as f:
            f.write("\t".join(COLUMNS) + "\n")
            for i, (kind, title) in enumerate(zip(kinds, make_titles(size, rng)), begin):
                ends = f"{names[kind]}\t{title}\t0.75\t{int(kind == 0)}\t{min(kind, 1)}\t{kind}"
                f.write(f"someone{i % 9973}\t{title}\t1507681490.0\ti.example.org\tFalse\t{i:07x}\t\t\t28\t24\t{ends}\n")
        begin += size
