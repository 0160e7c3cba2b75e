"Servers as processes: started, timed until they answer, weighed, stopped"
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import yaml

from bench.serve_load import as_form, as_json
from bench.serve_posts import TASK
from bench.serve_probe import ask
from multimodal_fakes.core import FakesError, root

N_WORKERS = os.cpu_count()      # processes with a detector, of ours and of the peers that have them


class Host:
    "A server on this machine"
    command, ready, path, asks = [], "/health", "/predict", staticmethod(as_form)
    def __init__(self, home): self.home, self.port = Path(home), free_port()

    def start(self, seconds=180):
        "Seconds from the command to the first good answer about its health"
        self.log = open(self.home/f"{self.name}.log", "ab")
        environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | {"BENTOML_HOME": str(self.home/"bentoml"), "HF_HUB_OFFLINE": "1"}      # torch takes all cores
        began = time.perf_counter()
        self.process = subprocess.Popen([sys.executable, "-m", *map(str, self.arguments())], cwd=root(), env=environment, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)
        while not self.is_ready():
            if self.process.poll() is not None or time.perf_counter() - began > seconds: self.stop(); raise FakesError(f"{self.name} did not start: {self.told()[-2000:]}")
            time.sleep(0.02)
        return time.perf_counter() - began

    def told(self): return (self.home/f"{self.name}.log").read_text(errors="replace")
    def is_ready(self): return self.get(self.ready)[0] == 200

    def get(self, path, seconds=10):
        "Status and body; zero where nobody answers"
        return ask(f"http://127.0.0.1:{self.port}{path}", seconds)

    def requests(self, posts): return [self.asks(self.path, p) for p in posts]

    def tree(self):
        "Its processes"
        try: parent = psutil.Process(self.process.pid); return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess: return []

    def memory(self):
        "MiB of all its processes, what they share counted once"
        total = 0
        for p in self.tree():
            try: total += p.memory_full_info().pss
            except psutil.NoSuchProcess: pass       # ended between being listed and being asked
        return total / 2**20

    def stop(self):
        "End it and whatever it started"
        group = self.tree()
        self.process.terminate()
        try: self.process.wait(40)
        except subprocess.TimeoutExpired: pass
        for p in group:
            try: p.kill()
            except psutil.NoSuchProcess: pass
        self.process.wait(); self.log.close()


class Reference(Host):
    name = "reference"
    def arguments(self): return ["bench.serve_reference", self.home/"models"/TASK, self.port]

class Bento(Host):
    name, ready, asks = "bentoml", "/readyz", staticmethod(as_json)
    def arguments(self): return adapter(self)

class Lit(Host):
    name = "litserve"
    def arguments(self): return adapter(self)

def adapter(host): return ["multimodal_fakes.service.adapters", host.name, host.home/"models"/TASK, "--port", host.port, "--runtime", "onnx", "--workers", N_WORKERS]

class Ours(Host):
    name, ready = "ours", "/health/ready"
    def __init__(self, home, **sections):
        super().__init__(home)
        self.sections = dict(access=dict(per_minute=0), log=dict(level="WARNING")) | sections      # all come from one address: no rate limit

    def arguments(self):
        models = dict(models=str(self.home/"models"), tasks=[TASK])
        conf = self.sections | dict(http=dict(port=self.port, default_task=TASK) | self.sections.get("http", {}), engine=models | self.sections.get("engine", {}))
        (self.home/"serve.yaml").write_text(yaml.safe_dump(conf))
        return ["multimodal_fakes.service.serve", "--conf", self.home/"serve.yaml"]

    def workers(self):
        "Processes that judge, by what they hold: the parent loads no detector"
        return sorted(self.tree()[1:], key=lambda p: -p.memory_info().rss)[:N_WORKERS]


def free_port():
    "One that nobody uses now"
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); return s.getsockname()[1]

@contextmanager
def running(host):
    "A server, and the seconds that its start took"
    seconds = host.start()
    try: yield seconds
    finally: host.stop()


class Probe(threading.Thread):
    "Asks /health/ready four times a second, from a process of its own as a cluster does, and remembers how long each answer took"
    def __init__(self, host, path="/health/ready", every=0.25):
        super().__init__(daemon=True)
        self.seconds, self.statuses = [], []
        self.process = subprocess.Popen([sys.executable, "-m", "bench.serve_probe", f"http://127.0.0.1:{host.port}{path}", str(every)], cwd=root(), stdout=subprocess.PIPE, text=True)

    def run(self):
        for line in self.process.stdout: self.statuses.append(int(line.split()[0])); self.seconds.append(float(line.split()[1]))

    def __enter__(self): self.start(); return self
    def __exit__(self, *_): self.process.terminate(); self.process.wait(); self.join()
