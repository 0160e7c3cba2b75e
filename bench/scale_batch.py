"""A table of headlines judged through torch and ONNX Runtime, memes whose words are read first, a page of a long
history, and a long text cut into windows.

The detector is trained here on a few hundred headlines of the pilot; a row costs what a long table takes beyond a
short one. `ROWS=100000` judges as many as the aim names."""
import os
import sys
import tempfile
import time
from pathlib import Path

from bench.scale import entry, exponent, measured
from multimodal_fakes.core import write_jsonl

ROWS = int(os.environ.get("ROWS", "20000"))
SHORT = 500                      # rows of the short table
MEMES = 64
PAGE, LABELS = 1000, (20_000, 80_000)
TOKENS = (32_000, 128_000)
TASK = "clickbait"


def make_detector(home):
    "A detector of headlines, exported in float"
    from multimodal_fakes.data.ocr import read_all
    from multimodal_fakes.data.prepare import prepare_all
    from multimodal_fakes.data.shard import shard_all
    from multimodal_fakes.detect.export import export_all
    from multimodal_fakes.experts.expert import load_task, train_expert
    from multimodal_fakes.fuse.fusion import fuse
    from multimodal_fakes.pilots.pilot import write_pilots
    from multimodal_fakes.settings import Recipe
    from multimodal_fakes.trust.calibrate import calibrate_all
    prepare_all(home, home, list(write_pilots(home/"Datasets", 0, {"pilot_clickbait": 400})), missing_budget=0.25)
    read_all(home, home)
    shard_all(home, home)
    task = load_task(home, TASK, "clickbait", ["pilot_clickbait"], {"text": "text"}, [])
    recipe = Recipe(
        encoder="small_text", frozen_epochs=0, epochs=3, frozen_lr=1e-3, lr=1e-3, weight_decay=0.01, batch_size=16,
        patience=3, loss="weighted", label_smoothing=0.0, n_workers=0, seed=0)
    train_expert(home, home, task, "text", recipe)
    fuse(home, home, task)
    calibrate_all(home, home, task.name, task.field, task.datasets, task.experts, task.tests)
    export_all(home, home, TASK, task.datasets, precisions=("float32",))


def headlines(home, n):
    "A table of n headlines of the pilot, numbered where they come again"
    from multimodal_fakes.core import read_jsonl
    texts = [row["text_raw"] for row in read_jsonl(home/"Step_2/data_manifest.jsonl")]
    path = home/f"{n}.jsonl"
    write_jsonl(path, ({"text": f"{texts[i % len(texts)]} {i // len(texts) or ''}".strip()} for i in range(n)))
    return path


def judging(home, table, runtime, workers):
    "CPU seconds and memory of `mmfakes batch`"
    words = ["batch", table, home/"out.jsonl", "--task", TASK, "--runtime", runtime]
    command = [sys.executable, "-m", "multimodal_fakes", *words, *(["--workers", workers] if workers else [])]
    return measured(list(map(str, command)), cwd=home, env=os.environ | {"PYTHONPATH": str(Path.cwd())})


def rows():
    "CPU milliseconds of a headline"
    with tempfile.TemporaryDirectory() as d:
        home = Path(d)
        make_detector(home)
        short, long = headlines(home, SHORT), headlines(home, ROWS)
        cost = {}
        for runtime, workers in (("torch", 1), ("onnx", 1), ("onnx", 2)):
            few, many = (judging(home, table, runtime, workers) for table in (short, long))
            cost[runtime, workers] = 1000 * (many["cpu_s"] - few["cpu_s"]) / (ROWS - SHORT)
            yield entry(f"batch of {ROWS:,} headlines, {runtime}, {workers} processes", cost[runtime, workers],
                        "CPU ms a row", peer=cost["torch", 1] if runtime == "onnx" else None)
            yield entry(f"batch of {ROWS:,} headlines, {runtime}, {workers} processes, memory", many["peak_gb"], "GB")


READ = """
import sys
from types import SimpleNamespace
from multimodal_fakes.detect.bulk import read_ahead
if __name__ == "__main__":
    reader = SimpleNamespace(bundle={"ocr": dict(side=640, min_confidence=0.5)}, modalities=["text"])
    folder, workers, *names = sys.argv[1:]
    assert len(read_ahead(reader, names, folder, int(workers))) == len(names)
"""


def memes():
    "CPU seconds of a meme whose words are read, each picture shown twice"
    from PIL import Image, ImageDraw, ImageFont
    with tempfile.TemporaryDirectory() as d:
        names = []
        for i in range(MEMES):
            picture = Image.new("RGB", (400, 300), (40 + i, 90, 120))
            ImageDraw.Draw(picture).text((20, 20), f"WHEN THE BOAT\nIS NUMBER {i}", "white", ImageFont.load_default(40))
            for copy in "ab":
                names.append(f"{d}/{i}{copy}.png")
                picture.save(names[-1])
        (Path(d)/"read.py").write_text(READ)
        cost = measured([sys.executable, f"{d}/read.py", f"{d}/words", "0", *names])
        again = measured([sys.executable, f"{d}/read.py", f"{d}/words", "0", *names])
    yield entry("words of a meme, read ahead", cost["cpu_s"] / MEMES, "CPU s a picture")
    yield entry("words of a meme, read before", again["cpu_s"] / MEMES, "CPU s a picture", peer=cost["cpu_s"] / MEMES)


def judged_memes():
    "CPU seconds of a meme of the pilot, its words read and judged with it, in one process and in all"
    if not Path("models/hateful_memes/detector.json").exists():
        print("models/ has no detector of memes to judge with: `make run` makes one")
        return
    pictures = sorted(Path("Datasets/pilot_hateful_memes/img").resolve().iterdir())
    with tempfile.TemporaryDirectory() as d:
        for workers in (1, os.cpu_count()):
            table, words = Path(d)/f"{workers}.jsonl", ["--task", "hateful_memes", "--runtime", "onnx"]
            write_jsonl(table, ({"image": str(picture)} for picture in pictures))
            command = ["batch", table, Path(d)/f"out{workers}.jsonl", *words, "--workers", workers]
            began = time.monotonic()
            cost = measured([sys.executable, "-m", "multimodal_fakes", *map(str, command)])
            seconds = time.monotonic() - began
            what = f"{len(pictures)} memes read and judged, {workers} processes"
            yield entry(what, cost["cpu_s"] / len(pictures), "CPU s a picture")
            yield entry(f"{what}, time", seconds / len(pictures), "s a picture")


def took(function):
    "CPU seconds of a call, the least of three"
    def once():
        before = time.process_time()
        function()
        return time.process_time() - before
    return min(once() for _ in range(3))


def pages():
    "A page of predictions among many labels"
    from sqlalchemy import insert

    from multimodal_fakes.service.history import History, HistoryConf, feedback
    answer = dict(task=TASK, prediction="real", probability=0.9, confidence=0.9, probabilities={"real": 0.9})
    with tempfile.TemporaryDirectory() as d:
        history, seconds = History(HistoryConf(url=f"sqlite:///{d}/history.db")), []
        ids = history.add_many([answer] * LABELS[0], [{"text": "A"}] * LABELS[0])
        one = dict(label_time=0.0, label="fake", labelled_by="ann", note="")
        for before, n in zip((0, *LABELS), LABELS):
            with history.writing() as connection:
                given = [one | dict(prediction_id=ids[i % len(ids)]) for i in range(before, n)]
                connection.execute(insert(feedback), given)
            seconds.append(took(lambda: history.find(limit=PAGE)))
        history.close()
    yield entry(f"page of {PAGE:,} predictions among {LABELS[-1]:,} labels", seconds[-1], "CPU s", 0.5)


def windows():
    "A long text in windows"
    from multimodal_fakes.experts.preprocess import long_parts
    seconds = [took(lambda: long_parts([1, *[0] * n, 1], 96, "windows")) for n in TOKENS]      # noqa: B023
    yield entry(f"windows of {TOKENS[-1]:,} tokens", seconds[-1], "CPU s", 0.4)
    yield entry("windows of a long text, growth", exponent(TOKENS, seconds), "exponent", 1.5)


def run():
    "All entries of this part"
    for part in (windows, pages, memes, judged_memes, rows):
        yield from part()
