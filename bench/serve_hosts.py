"Servers as processes: started, timed until they answer, weighed, stopped"
import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import yaml

from bench.serve_posts import TASK
from bench.serve_probe import ask
from multimodal_fakes.core import FakesError, root
from multimodal_fakes.service.load import as_form, request

N_WORKERS = os.cpu_count()      # processes with a detector, of ours and of the peers that have them


def as_json(path, post):
    "As BentoML takes what is to be batched: a list, pictures in base64"
    image = base64.b64encode(post["image"]).decode()
    body = json.dumps({"posts": [{"text": post["text"], "image": image}]})
    return request(path, body.encode(), "application/json")


class Host:
    "A server on this machine"
    ready = "/health"
    path = "/predict"
    asks = staticmethod(as_form)
    before = ()         # of the command that starts it

    def __init__(self, home):
        self.home = Path(home)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def launch(self):
        "Its process; torch may take all cores"
        self.log = open(self.home/f"{self.name}.log", "ab")
        environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        environment |= {"BENTOML_HOME": str(self.home/"bentoml"), "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [*self.before, sys.executable, "-m", *map(str, self.arguments())],
            cwd=root(),
            env=environment,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def start(self, seconds=180):
        "Seconds from the command to the first good answer about its health"
        began = time.perf_counter()
        self.launch()
        while not self.is_ready():
            late = time.perf_counter() - began > seconds
            if late or self.process.poll() is not None:
                self.stop()
                raise FakesError(f"{self.name} did not start: {self.output()[-2000:]}")
            time.sleep(0.02)
        return time.perf_counter() - began

    def output(self):
        "What it wrote to its log"
        return (self.home/f"{self.name}.log").read_text(errors="replace")

    def is_ready(self):
        "Whether it answers about its health"
        return self.get(self.ready)[0] == 200

    def get(self, path, seconds=10):
        "Status and body; zero where nobody answers"
        return ask(self.url + path, seconds)

    def requests(self, posts):
        "Posts as it takes them, as bytes"
        return [self.asks(self.path, post) for post in posts]

    def tree(self):
        "Its processes"
        try:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def memory(self):
        "MiB of all its processes, what they share counted once"
        total = 0
        for process in self.tree():
            with suppress(psutil.NoSuchProcess):       # ended between being listed and being asked
                total += process.memory_full_info().pss
        return total / 2**20

    def stop(self):
        "End it and whatever it started"
        group = self.tree()
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(40)
        for process in group:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        self.log.close()


class Reference(Host):
    "FastAPI with torch"
    name = "reference"

    def arguments(self):
        return ["bench.serve_reference", self.home/"models"/TASK, self.port]

class Adapted(Host):
    "A peer that serves the same graphs through an adapter of this project"
    def arguments(self):
        options = ["--port", self.port, "--runtime", "onnx", "--workers", N_WORKERS]
        return ["multimodal_fakes.service.adapters", self.name, self.home/"models"/TASK, *options]

class Bento(Adapted):
    "BentoML"
    name = "bentoml"
    ready = "/readyz"
    asks = staticmethod(as_json)

class Lit(Adapted):
    "LitServe"
    name = "litserve"

class Ours(Host):
    "The service of this project"
    name = "ours"
    ready = "/health/ready"

    def __init__(self, home, **sections):
        super().__init__(home)
        unlimited = dict(per_minute=0)      # all come from one address
        self.sections = dict(access=unlimited, log=dict(level="WARNING")) | sections

    def arguments(self):
        http = dict(port=self.port, default_task=TASK)
        engine = dict(models=str(self.home/"models"), tasks=[TASK])
        conf = self.sections | dict(
            http=http | self.sections.get("http", {}),
            engine=engine | self.sections.get("engine", {}),
        )
        (self.home/"serve.yaml").write_text(yaml.safe_dump(conf))
        return ["multimodal_fakes", "serve", "--conf", self.home/"serve.yaml"]

    def workers(self):
        "Processes that judge, by what they hold: the parent loads no detector"
        children = self.tree()[1:]
        return sorted(children, key=lambda p: -p.memory_info().rss)[:N_WORKERS]


def free_port():
    "One that nobody uses now"
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

@contextmanager
def running(host):
    "A server, and the seconds that its start took"
    seconds = host.start()
    try:
        yield seconds
    finally:
        host.stop()


class Beside(threading.Thread):
    "Measures from a process of its own, whose lines are read as they come"
    def __init__(self, *words, **environment):
        super().__init__(daemon=True)
        command = [sys.executable, "-m", *map(str, words)]
        env = os.environ | environment
        self.process = subprocess.Popen(command, cwd=root(), env=env, stdout=subprocess.PIPE, text=True)

    def take(self, *words):
        "The words of a line"
        raise NotImplementedError

    def run(self):
        for line in self.process.stdout:
            self.take(*line.split())

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.join()


class Probe(Beside):
    """Asks /health/ready four times a second and remembers how long each answer took.

    From a process of its own, as a cluster does."""
    def __init__(self, host, path="/health/ready", every=0.25):
        self.seconds = []
        self.statuses = []
        super().__init__("bench.serve_probe", host.url + path, every)

    def take(self, status, seconds):
        self.statuses.append(int(status))
        self.seconds.append(float(seconds))
