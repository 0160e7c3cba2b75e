"A service under attack: who attacks it, what is sent, what came back, and what should have been"
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.serve_hostile import CLOSE, say
from bench.serve_hosts import Ours
from multimodal_fakes.service.load import FORM, multipart, request


class Sampler(threading.Thread):
    "The most memory of a server, looked at every second"
    def __init__(self, host):
        super().__init__(daemon=True)
        self.host = host
        self.most = 0.0
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(1.0):
            self.most = max(self.most, self.host.memory())

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()

@dataclass
class Detectors:
    "What the services judge with"
    models:Path     # folder of detectors
    text:str        # name of the one for posts
    video:str       # and for clips

@dataclass
class Scene:
    "A service, whom it is kept from, and what the attacker got"
    host:Ours
    stock:object
    detectors:Detectors
    key:str|None = None         # of the attacker
    ends:float = 0.0            # as time.monotonic() has it
    window:tuple = (0.0, 0.0)   # from when to when the bystander is watched, as time.time() has it
    answers:list = field(default_factory=list)      # status of each thing sent, zero where nothing came
    claims:dict = field(default_factory=dict)       # what should be → whether it was

    def begin(self, seconds):
        "From now on the bystander is watched"
        self.ends = time.monotonic() + seconds
        self.window = (time.time(), time.time() + seconds)

    def stop_watching(self):
        "What comes now is the bench's own doing"
        self.window = (self.window[0], min(self.window[1], time.time()))

    def goes_on(self):
        "Whether the attack lasts"
        return time.monotonic() < self.ends

    def send(self, raw, seconds=30):
        "Status and answer, noted"
        try:
            status, answer = say(self.host.port, raw, seconds)
        except OSError:
            status, answer = 0, b""
        self.answers.append(status)
        return status, answer

    def headers(self, **more):
        "Of a request of the attacker's, the last of its connection"
        return CLOSE | ({"X-API-Key": self.key} if self.key else {}) | more

    def json(self, path, body, **headers):
        "A request with JSON, or with what is said to be JSON"
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return request(path, raw, "application/json", self.headers(**headers))

    def form(self, path, fields, **headers):
        "A request with a form"
        return request(path, multipart(fields), FORM, self.headers(**headers))

    def get(self, path, method="GET"):
        "A request without a body"
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{k}: {v}" for k, v in self.headers().items())]
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()

    def together(self, n, work, pause=0.0):
        "So many clients who do the same again and again, until time is up"
        def again():
            while self.goes_on():
                work()
                time.sleep(pause)
        clients = [threading.Thread(target=again, daemon=True) for _ in range(n)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()

    def wait(self):
        "Until time is up"
        time.sleep(max(0.0, self.ends - time.monotonic()))

    def all_refused(self, claim="all of it is refused"):
        "Claim that nothing of what was sent was taken, and nothing broke"
        self.claims[claim] = all(refused(status) for status in self.answers)

def refused(status):
    "With a reason that is the sender's, or that there is no room"
    return 400 <= status < 500 or status in (503, 504)

def body_of(answer):
    "JSON of an answer with its head; an empty object where there is none"
    with suppress(ValueError):
        return json.loads(answer.partition(b"\r\n\r\n")[2])
    return {}

def metric(scene, name):
    "Values of a metric: text of its labels → number"
    _, answer = say(scene.host.port, scene.get("/metrics"), 10)
    rows = re.findall(rf"^{name}(\S*) (\S+)$", answer.decode(errors="replace"), re.M)
    return {labels: float(value) for labels, value in rows}

def comes_true(check, seconds):
    "Whether it is so within a time"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.2)
    return bool(check())


@dataclass
class Attack:
    "One kind of attack"
    name:str
    launch:Callable     # with a scene
    keys:bool           # whether attacker and bystander have keys, else addresses
    files:int|None      # that the service may have open
    sections:dict       # settings that are not those by default

    @property
    def about(self):
        "The first line of its docstring"
        return self.launch.__doc__.splitlines()[0]
