"""One remembered tweet a picture: does it find the others? 2,630 tweets with copies of 92 pictures (MediaEval 2015-16).

Half of the photos are remembered, by one tweet each, then the other half; every other tweet is asked, also those whose
photo nobody remembered, which must find nothing. The data set keeps one file a picture, so its copies are equal to the
byte; beside them stand copies as platforms make them (`shared` of detect.corruptions), a severity and a draw for each
tweet, and the words of the tweets alone. A tweet finds an item that is a copy with a probability of a half or more."""
import csv
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np

from bench.memory import entry
from bench.quality_sets import DATASETS
from multimodal_fakes.core import FakesError
from multimodal_fakes.detect.corruptions import SEVERITIES, corrupt
from multimodal_fakes.memory.prints import make_prints
from multimodal_fakes.memory.recall import Memory

SAME = {     # files that show one photo: other colours, other compression, words printed over it; looked at by a person
    "images2016sub/fuji_lenticular_2.jpg": "images2016sub/fuji_lenticular_1.jpg",
    "images2015test/nepal_32.jpg": "images2015test/nepal_27.jpg",
    "images2015test/eclipse_04.jpg": "images2015test/eclipse_01.jpg",
    "images2015test/nepal_08.jpg": "images2015test/nepal_01.jpg",
}
DRAWS = 4                # of each severity and picture: so many different copies of a severity
SURE = 0.5               # probability of being a copy from which on a tweet counts as found
WAYS = "the same file", "as platforms share it", "words alone"
PRECISION, RECALL = 0.99, 0.95       # asked for where a picture is there
COMMAND = "python -m bench memory mediaeval"


def read_tweets():
    "Rows of the manifest, each with its photo and a number among the tweets of its picture"
    folder = DATASETS/"mediaeval"
    if not folder.is_dir():
        raise FakesError(f"No folder {folder}: name the folder that holds `mediaeval` with DATASETS=….")
    with open(folder/"manifest.csv", encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    seen, kept = Counter(), []
    for row in rows:
        photo = SAME.get(row["image"], row["image"])
        seen[photo] += 1
        kept.append(row | dict(photo=photo, number=seen[photo], path=folder/row["image"]))
    return kept


@cache
def shared(path, severity, draw):
    "Prints of a copy as a platform makes it"
    return make_prints(image=corrupt("vision", "shared", path, severity, id=f"{Path(path).name} {draw}"))


def asked(row, way):
    "What a tweet is recognised by"
    if way == "words alone":
        return make_prints(row["text"])
    if way == "the same file":
        return make_prints(row["text"], image=row["path"])
    severity = SEVERITIES[row["number"] % len(SEVERITIES)]
    copy = shared(row["path"], severity, row["number"] // len(SEVERITIES) % DRAWS)
    words = make_prints(row["text"])
    return copy._replace(words=words.words, text=words.text)


def found_by(memory, rows, photo_of, way):
    "For each tweet: the photo of the best item that it is a copy of, none where it finds nothing"
    found = []
    for row in rows:
        best = next(iter(memory.recall(asked(row, way), k=1)), None)
        is_copy = best and best["relation"] == "copy" and best["probability"] >= SURE
        found.append(photo_of[best["id"]] if is_copy else None)
    return found


def judged(rows, photos, way):
    "A row for each tweet but the remembered ones: its photo, whether that is remembered, and what it found"
    remembered = {row["photo"]: row for row in reversed(rows) if row["photo"] in photos}       # the first tweet of each
    others = [row for row in rows if remembered.get(row["photo"]) is not row]
    with tempfile.TemporaryDirectory() as folder, Memory.open(folder, create=True) as memory:
        photo_of = {}
        for photo, row in remembered.items():
            prints = make_prints(row["text"], image=row["path"])
            photo_of[memory.remember(prints, "fake_news", row["label"], "bench")] = photo
        found = found_by(memory, others, photo_of, way)
    return [(row["photo"], row["photo"] in photos, one) for row, one in zip(others, found)]


def figures(answers):
    "Precision and recall of some answers"
    told = [photo == found for photo, _, found in answers if found]
    known = [photo == found for photo, is_known, found in answers if is_known]
    return (np.mean(told) if told else 1.0), np.mean(known)


def interval(answers, n=500):
    "95 % of precision and of recall when photos are drawn anew"
    rng, of = np.random.default_rng(0), {}
    for answer in answers:
        of.setdefault(answer[0], []).append(answer)
    names, drawn = sorted(of), []
    for _ in range(n):
        some = [answer for k in rng.integers(0, len(names), len(names)) for answer in of[names[k]]]
        if any(is_known for _, is_known, _ in some):
            drawn.append(figures(some))
    return np.percentile(drawn, [2.5, 97.5], axis=0).T


def run(part_args=()) -> list:
    "Precision and recall of each way, beside the equal file alone"
    rows = read_tweets()
    photos = np.array(sorted({row["photo"] for row in rows}))
    half = np.random.default_rng(0).permutation(photos)[:len(photos) // 2]
    entries = []
    for way in WAYS:
        answers = judged(rows, set(half), way) + judged(rows, set(photos) - set(half), way)
        (precision, recall), ((p_low, p_high), (r_low, r_high)) = figures(answers), interval(answers)
        strangers = sum(not is_known for _, is_known, _ in answers)
        wrong = sum(bool(found) and not is_known for _, is_known, found in answers)
        said = (f"precision {precision:.4f} [{p_low:.4f}, {p_high:.4f}], recall {recall:.4f} "
                f"[{r_low:.4f}, {r_high:.4f}] over {len(photos)} photos; {wrong} of {strangers:,} tweets of photos "
                "that nobody remembered find one")
        print(f"{way}: {said}")
        data = f"mediaeval, {len(rows):,} tweets, half of the photos remembered in turn; {said}"
        for name, ours, asked_for in (("precision", precision, PRECISION), ("recall", recall, RECALL)):
            least = None if way == "words alone" else asked_for
            entries.append(entry(f"tweets found by {way}, {name}", ours, name, data, COMMAND, least=least))
    return entries
