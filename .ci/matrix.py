"""Each extra of the built wheel in an environment of its own, outside any clone: right answers, or what to install.

    python .ci/matrix.py MODELS [MODELS …] [--only base serve] [--python 3.11]

MODELS are folders of detectors, such as models/ of a finished run; .ci/strategies.py makes one for each way to fuse.
A verb is a line in `VERBS` or `ONCE`. The known answer that each bundle carries (golden/) says what is right; where an
extra is lacking, one sentence must name it. The exit status is the number of failures, 99 at most.
"""
import argparse
import csv
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import NamedTuple

CLONE = Path(__file__).resolve().parent.parent
NAME = "multimodal_fakes"
STATED = tomllib.loads((CLONE/"pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
EXTRAS = ["base", *(name for name in STATED if name != "dev")]
SECONDS = 300
MODULES = {      # what an extra brings that no verb below asks for
    "torchcodec": "import torchcodec",
    "hub": "import fsspec, huggingface_hub",
    "postgres": "import psycopg, sqlalchemy",
    "sql": "import multimodal_fakes.data.sql, psycopg",
    "track": "import dvclive, mlflow",
    "wandb": "import wandb",
    "tensorboard": "import tensorboard",
    "ray": "import ray",
    "memory": "import usearch.index",
    "app": "import streamlit",
    "lab": "import ipywidgets, jupyterlab",
}


# ---- what is asked

class Verb(NamedTuple):
    "A command of `mmfakes`; {model}, {task}, {post} and {table} stand for a bundle and its known post"
    words: str
    needs: tuple = ()      # extras beyond base with which it must work
    right: object = None   # function of (its output, bundle, folder it ran in) → what is wrong, nothing if right


class Bundle(NamedTuple):
    "A detector and its known answer"
    folder: Path
    about: dict     # detector.json
    golden: dict    # golden/golden.json

    @property
    def needs(self):
        "Extras that its posts ask for"
        reads = self.about["ocr"] is not None and "image" in self.golden["post"]
        return ("ocr",) if reads else ()

    def post(self):
        "The known post: its files with their whole path"
        return {part: value if part == "text" else str(self.folder/"golden"/value)
                for part, value in self.golden["post"].items()}


def compared(probabilities, bundle, runtime):
    "What is wrong with an answer, by the known one"
    known, most = bundle.golden["probabilities"][runtime], bundle.golden["tolerance"]
    if set(probabilities) != set(known): return f"classes {', '.join(probabilities)}"
    differ = max(abs(float(probabilities[name]) - value) for name, value in known.items())
    return f"a probability is {differ:.3f} from the known one" if differ > most else ""


def judged(runtime):
    "A check of one answer as JSON"
    def check(output, bundle, folder): return compared(json.loads(output)["probabilities"], bundle, runtime)
    return check


def judged_table(name):
    "A check of a table of answers"
    def check(output, bundle, folder):
        rows = table_rows(folder/name)
        if len(rows) != 2: return f"{len(rows)} rows, not 2"
        columns = {name: f"p_{name}" for name in bundle.golden["probabilities"]["onnx"]}
        return compared({name: rows[0][column] for name, column in columns.items()}, bundle, "onnx")
    return check


def table_rows(path):
    "The rows of a table"
    if path.suffix == ".jsonl": return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with open(path, encoding="utf-8", newline="") as f: return list(csv.DictReader(f))


def parquet(output, bundle, folder):
    "A check of the first bytes: this Python may not read Parquet"
    return "" if (folder/"out.parquet").read_bytes()[:4] == b"PAR1" else "no Parquet"


def written(name):
    "A check that a file was written"
    return lambda output, bundle, folder: "" if (folder/name).stat().st_size > 1000 else f"{name} is empty"


def says(pattern):
    "A check of what was printed"
    return lambda output, bundle, folder: "" if re.search(pattern, output) else f"says {output[:80]!r}"


VERBS = {
    "predict": Verb("predict --model {model} --runtime onnx --json {post}", (), judged("onnx")),
    "predict, torch": Verb("predict --model {model} --runtime torch --json {post}", ("torch",), judged("torch")),
    "batch to csv": Verb("batch --model {model} --runtime onnx {table} out.csv", (), judged_table("out.csv")),
    "batch to jsonl": Verb("batch --model {model} --runtime onnx {table} out.jsonl", (), judged_table("out.jsonl")),
    "batch to parquet": Verb("batch --model {model} --runtime onnx {table} out.parquet", ("parquet",), parquet),
    "explain": Verb("explain --model {model} --json {post}", ("torch",), says("probabilit")),
    "explain, drawn": Verb(
        "explain --model {model} --picture why.png {post}", ("torch", "explain"), written("why.png")),
    "pack": Verb("pack {model} packed.tar.gz", (), written("packed.tar.gz")),
}
ONCE = {
    "help": Verb("--help", (), says("predict")),
    "version": Verb("version", (), says(r"\d+\.\d+\.\d+")),
    "doctor": Verb("doctor", (), says("torch")),
    "remember": Verb("remember --memory memory --text harbour --label fake", (), says("^[0-9a-f]{16}: fake")),
    "init": Verb("init demo", ("pipeline",), lambda output, bundle, folder: project_lacks(folder/"demo")),
}


def project_lacks(folder):
    "What a new project lacks"
    names = ("dvc.yaml", "params.yaml", "conf", "nbs", ".dvc/config", "Datasets/pilot_clickbait/README.txt")
    return ", ".join(name for name in names if not (folder/name).exists())


# ---- environments

class Environment(NamedTuple):
    "An extra, installed"
    extra: str
    folder: Path

    @property
    def bin(self): return self.folder/"bin"

    @property
    def megabytes(self): return int(run(["du", "-sm", self.folder]).stdout.split()[0])


def held(extra):
    "An extra with those that it takes in"
    names = {extra}
    for line in STATED.get(extra, []):
        taken = re.match(rf"{NAME}\[(.+)\]", line)
        for name in taken[1].split(",") if taken else []: names |= held(name)
    return names


def run(command, **options):
    "A command that must work"
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode: sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done


def build(folder):
    "The wheel of this clone"
    run(["uv", "build", "--quiet", "--wheel", "--out-dir", folder, CLONE])
    return next(Path(folder).glob("*.whl"))


def install(extra, wheel, folder, python):
    "An environment with the wheel and one extra, in the versions of the lock"
    run(["uv", "venv", "--quiet", "--python", python, folder])
    what = wheel if extra == "base" else f"{wheel}[{extra}]"
    run(["uv", "pip", "install", "--quiet", "--python", folder/"bin/python", "-c", CLONE/"requirements.lock", what])
    return Environment(extra, folder)


def variables(environment, home):
    "No clone, no cache and no other library in sight"
    path = os.pathsep.join([str(environment.bin), "/usr/local/bin", "/usr/bin", "/bin"])
    return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "HF_HUB_OFFLINE": "1", "DVC_NO_ANALYTICS": "1",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}


# ---- one cell of the matrix

def outcome(done, needs, environment, problem):
    "(whether it may stay so, in words)"
    lacking = sorted(set(needs) - held(environment.extra))
    if done.returncode == 0: return not problem, problem or "right"
    last = (done.stderr.strip().splitlines() or ["no word"])[-1]
    named = set(re.findall(rf"{NAME}\[([\w,]+)\]", last)) - held(environment.extra)
    if "Traceback" in done.stderr: return False, f"traceback: {last}"
    if lacking and named: return True, f"names {', '.join(sorted(named))}"
    return False, last


def ask(environment, verb, bundle, folder):
    "Run a verb in a folder of its own"
    folder.mkdir(parents=True)
    words = [part for word in verb.words.split() for part in filled(word, bundle, folder)]
    command = [environment.bin/"mmfakes", *words]
    options = dict(cwd=folder, env=variables(environment, folder), capture_output=True, text=True, timeout=SECONDS)
    try: done = subprocess.run(command, **options)
    except subprocess.TimeoutExpired: return False, f"no end in {SECONDS} s"
    problem = ""
    if done.returncode == 0 and verb.right:
        try: problem = verb.right(done.stdout, bundle, folder)
        except (ValueError, LookupError, OSError) as e: problem = f"{type(e).__name__}: {e}"
    return outcome(done, (*verb.needs, *(bundle.needs if bundle else ())), environment, problem)


def filled(word, bundle, folder):
    "A word of a command, or several in its place"
    if bundle is None: return [word]
    if word == "{post}": return [part for name, value in bundle.post().items() for part in (f"--{name}", value)]
    if word == "{table}": return [write_table(bundle, folder)]
    return [word.format(model=bundle.folder, task=bundle.about["task"])]


def write_table(bundle, folder):
    "The known post twice"
    post = bundle.post()
    with open(folder/"my posts.csv", "w", encoding="utf-8", newline="") as f:
        table = csv.DictWriter(f, list(post))
        table.writeheader()
        table.writerows([post, post])
    return "my posts.csv"


def serve(environment, bundle, folder):
    "Start the service on one bundle, ask it for the known answer, end it"
    folder.mkdir(parents=True)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [environment.bin/"mmfakes", "serve", "--model", bundle.folder, "--port", port, "--runtime", "onnx"]
    options = dict(cwd=folder, env=variables(environment, folder), text=True)
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    service = subprocess.Popen([str(word) for word in command], **options, **pipes)
    try: problem = answered(service, f"http://127.0.0.1:{port}", bundle)
    finally: service.terminate()
    out, err = service.communicate(timeout=60)
    ended = service.returncode if problem is None else 0
    if problem and f"{NAME}[" in problem: ended, err = 1, problem          # it serves, and says why not this detector
    done = subprocess.CompletedProcess(command, ended, out, err)
    return outcome(done, ("serve", *bundle.needs), environment, problem)


def answered(service, address, bundle):
    "What is wrong with the service's answer; none where it has ended"
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if service.poll() is not None: return None
        try: urllib.request.urlopen(f"{address}/health/ready", timeout=5).close()
        except urllib.error.HTTPError as e:
            reasons = e.read().decode()
            if f"{NAME}[" in reasons: return reasons
            time.sleep(0.2)
        except OSError: time.sleep(0.2)
        else: break
    else: return "not ready in 120 s"
    words = [f"{name}={value if name == 'text' else f'@{value}'}" for name, value in bundle.post().items()]
    form = [part for word in words for part in ("-F", word)]
    done = run(["curl", "-s", f"{address}/predict/{bundle.about['task']}", *form])
    return judged("onnx")(done.stdout, bundle, None)


# ---- the whole

def rows_of(environment, bundles, folder):
    "(verb, bundle, whether it may stay so, in words) of everything asked of an extra"
    for name, verb in ONCE.items(): yield name, "", *ask(environment, verb, None, folder/name)
    if environment.extra in MODULES:
        command = [environment.bin/"python", "-c", MODULES[environment.extra]]
        done = subprocess.run(command, capture_output=True, text=True)
        yield "import", "", *outcome(done, (environment.extra,), environment, "")
    for place, bundle in bundles.items():
        for name, verb in VERBS.items(): yield name, place, *ask(environment, verb, bundle, folder/place/name)
        yield "serve", place, *serve(environment, bundle, folder/place/"serve")


def read_bundles(folders):
    "Name → bundle, of every detector in these folders"
    bundles = {}
    for path in sorted(path for folder in folders for path in Path(folder).resolve().glob("*/detector.json")):
        about, golden = (json.loads(file.read_text()) for file in (path, path.parent/"golden/golden.json"))
        bundles[f"{path.parent.name} ({about['ships']})"] = Bundle(path.parent, about, golden)
    if not bundles: sys.exit(f"No detector in {', '.join(map(str, folders))}: expected folders with a detector.json.")
    return bundles


def first_answer(environment, bundles, folder):
    "Seconds of the command to an answer through ONNX, the better of two"
    bundle, seconds = next(iter(bundles.values())), []
    for i in range(2):
        began = time.monotonic()
        ask(environment, VERBS["predict"], bundle, folder/f"{i}")
        seconds.append(time.monotonic() - began)
    return min(seconds)


def tried(extra, bundles, wheel, scratch, python):
    "Install an extra, ask everything of it, print; how many failures"
    environment = install(extra, wheel, scratch/"environments"/extra, python)
    rows = list(rows_of(environment, bundles, scratch/"a folder"/extra))
    seconds = first_answer(environment, bundles, scratch/"timed"/extra)
    kinds = ["right" if words == "right" else "names an extra" if well else "FAILED" for *_, well, words in rows]
    counts = Counter(kinds)
    told = ", ".join(f"{n} {words}" for words, n in sorted(counts.items()))
    print(f"{extra:11} {environment.megabytes:6,} MB  {seconds:5.1f} s to an answer  {told}", flush=True)
    for name, place, well, words in rows:
        if not well: print(f"    {name}, {place}: {words}" if place else f"    {name}: {words}", flush=True)
    run(["rm", "-rf", environment.folder])
    return counts["FAILED"]


def main():
    "Every extra, or some"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="folders of detectors")
    parser.add_argument("--only", nargs="+", choices=EXTRAS, default=EXTRAS, metavar="EXTRA", help=", ".join(EXTRAS))
    parser.add_argument("--python", default="3.11")
    parser.add_argument("--wheel", help="built already")
    args = parser.parse_args()
    bundles = read_bundles(args.models)
    with tempfile.TemporaryDirectory(prefix="matrix ") as d:
        wheel = Path(args.wheel).resolve() if args.wheel else build(Path(d)/"dist")
        print(f"{wheel.name}, Python {args.python}; detectors: {', '.join(bundles)}")
        failures = sum(tried(extra, bundles, wheel, Path(d), args.python) for extra in args.only)
    sys.exit(min(failures, 99))


if __name__ == "__main__": main()
