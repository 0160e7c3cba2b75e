"""How large an installation is, and how soon it answers: ours, AutoGluon MultiModal's and transformers' pipeline.

One headline by MiniLM in each, from the start of Python to the answer, in processes of their own, in turns. Each side
is installed into an environment of its own with files of its own (no hard links), in `.cache/bench/first_answer` or
the folder that FIRST_ANSWER names."""
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.quality_serving import detector
from bench.quality_sets import HOME as QUALITY
from bench.text_training import AUTOGLUON
from multimodal_fakes.core import root
from multimodal_fakes.experts.encoder import load_encoder_conf, resolve_source

HOME = Path(os.environ.get("FIRST_ANSWER", root()/".cache/bench/first_answer"))
ROUNDS = 5
POST = "You will not believe what this lighthouse keeper saw next"
DATA = f"one headline, MiniLM, from the start of Python to the answer, median of {ROUNDS} rounds in turns, warm disk"
PEERS = {"autogluon": [AUTOGLUON], "transformers": ["transformers>=5,<6", "torch>=2.11"]}
EXTRAS = {"base": "", "serve": "[serve]", "all": "[all]"}      # of ours

OURS = """
import sys
from multimodal_fakes import Detector
print(Detector.load(sys.argv[1]).predict(sys.argv[2])["probability"])
"""
TRANSFORMERS = """
import sys
from transformers import pipeline
print(pipeline("text-classification", model=sys.argv[1])(sys.argv[2])[0]["score"])
"""
AUTOGLUON_ANSWERS = """
import sys
import pandas as pd
from autogluon.multimodal import MultiModalPredictor
print(MultiModalPredictor.load(sys.argv[1]).predict_proba(pd.DataFrame({"text": [sys.argv[2]]})))
"""
MAKE_TRANSFORMERS = """
import sys
from transformers import AutoModelForSequenceClassification, AutoTokenizer
AutoModelForSequenceClassification.from_pretrained(sys.argv[1], num_labels=2).save_pretrained(sys.argv[2])
AutoTokenizer.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])
"""
MAKE_AUTOGLUON = """
import sys
import pandas as pd
from autogluon.multimodal import MultiModalPredictor
posts = pd.DataFrame({"text": [f"{word} headline {i}" for i in range(16) for word in "ab"], "y": [0, 1] * 16})
given = {"model.names": ["hf_text"], "model.hf_text.checkpoint_name": sys.argv[1], "optim.max_epochs": 1}
given |= {"env.num_gpus": 0, "env.num_workers": 0, "env.num_workers_inference": 0}
MultiModalPredictor(label="y", path=sys.argv[2], problem_type="binary").fit(posts, hyperparameters=given)
"""


# ---- environments
def wheel() -> Path:
    "Of this clone, built anew"
    folder = HOME/"dist"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["uv", "build", "--quiet", "--wheel", "--out-dir", str(folder), str(root())], check=True)
    return next(folder.glob("*.whl"))


def environment(name, packages) -> Path: # its Python
    "Install packages into an environment of their own; one that is there stays, but for our own wheel"
    folder = HOME/name
    python = folder/"bin/python"
    if not python.exists():
        subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    install = ["uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *packages]
    subprocess.run(install, check=True, env=os.environ | {"UV_LINK_MODE": "copy"})
    return python


def megabytes(python) -> float:
    "Of all that is installed beside a Python, of 2²⁰ bytes"
    files = (python.parent.parent/"lib").rglob("*")
    sizes = {(stat.st_dev, stat.st_ino): stat.st_size for stat in (f.lstat() for f in files if f.is_file())}
    return sum(sizes.values()) / 2**20


# ---- answers
def made(path, python, script, *arguments) -> Path:
    "What a script writes to a path, written once"
    if not path.exists():
        answer(python, script, *arguments, path)
    return path


def answer(python, script, *arguments):
    "Run a script in an environment, outside the clone and without its variables"
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [str(python), "-c", script, *map(str, arguments)]
    done = subprocess.run(command, cwd="/", env=kept | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"Error: {python} failed: {done.stderr[-1000:]}")


def commands(pythons) -> dict: # side → arguments of `answer`
    "What each side runs"
    source = resolve_source(load_encoder_conf("minilm").source)
    hub = made(HOME/"minilm", pythons["transformers"], MAKE_TRANSFORMERS, source)
    predictor = made(HOME/"predictor", pythons["autogluon"], MAKE_AUTOGLUON, source)
    detector("minilm")
    bundle = QUALITY/"serving/models/task"
    ours = {name: (pythons[name], OURS, bundle, POST) for name in EXTRAS}
    return ours | {
        "transformers": (pythons["transformers"], TRANSFORMERS, hub, POST),
        "autogluon": (pythons["autogluon"], AUTOGLUON_ANSWERS, predictor, POST),
    }


def seconds(asked) -> dict: # side → median seconds
    "All sides in turns, after one round that warms the disk"
    times = {name: [] for name in asked}
    for turn in range(ROUNDS + 1):
        for name, arguments in asked.items():
            began = time.perf_counter()
            answer(*arguments)
            if turn:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(each) for name, each in times.items()}


def entry(name, ours, peer, unit, data) -> dict:
    "One figure as results.json keeps it"
    return dict(
        name=name,
        ours=round(ours, 3),
        peer=round(peer, 3),
        ratio=round(ours / peer, 4),
        unit=unit,
        higher_is_better=False,
        command="python -m bench first_answer",
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        data=data,
    )


def run() -> list:
    "Each of ours beside each peer: megabytes and seconds"
    built = wheel()
    ours = {name: environment(name, [f"{built}{extra}"]) for name, extra in EXTRAS.items()}
    pythons = ours | {name: environment(name, packages) for name, packages in PEERS.items()}
    sizes = {name: megabytes(python) for name, python in pythons.items()}
    times = seconds(commands(pythons))
    figures = []
    for name in EXTRAS:
        for peer in PEERS:
            beside = f"{name} beside {peer}"
            figures.append(entry(f"installed, {beside}", sizes[name], sizes[peer], "MB", "Linux x86-64, Python 3.11"))
            figures.append(entry(f"first answer, {beside}", times[name], times[peer], "s", DATA))
    return figures
