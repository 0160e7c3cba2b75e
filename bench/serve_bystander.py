"""One who posts short texts, and a cluster that probes, while others attack: from addresses of their own.

`python -m bench.serve_bystander PORT NUMBER` prints of each request its kind, number, beginning, status and seconds. A
request is sent when its time has come, whether or not those before it were answered: a service that stands still is
late for all of them."""
import asyncio
import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np

from bench.serve_hosts import Beside
from multimodal_fakes.service.load import read_answer, request

POSTS, PROBES = "127.0.{}.2", "127.0.{}.3"      # addresses from which they come, of each bystander its own
PATIENCE = 15.0                                 # seconds; who waits for longer was not answered
KINDS = {"post": 0.2, "live": 0.25, "ready": 0.25}      # seconds from one to the next
KEY = "BENCH_KEY"                               # environment variable that holds the key of the posts
LAST = {"Connection": "close"}


def short_post(n, key=None):
    "A headline that nobody has sent before"
    headers = LAST | ({"X-API-Key": key} if key else {})
    body = json.dumps({"text": f"A headline of number {n} {os.urandom(4).hex()}"})
    return request("/classify", body.encode(), "application/json", headers)

def get(path, key=None):
    "A GET as bytes, the last of its connection"
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
    if key:
        lines.append(f"X-API-Key: {key}")
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()

async def answer_to(raw, port, source):
    "Status of the answer to a request on a connection of its own"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    try:
        writer.write(raw)
        status, *_ = await read_answer(reader)
        return status
    finally:
        writer.close()

async def ask(kind, n, raw, port, source):
    "Send one and print what came of it; status zero where that was nothing"
    began = time.time()
    try:
        status = await asyncio.wait_for(answer_to(raw, port, source), PATIENCE)
    except (OSError, TimeoutError, EOFError, IndexError, ValueError):
        status = 0
    print(kind, n, began, status, time.time() - began, flush=True)

async def ask_always(kind, make, port, source):
    "One after the other, each at its time"
    loop = asyncio.get_running_loop()
    due = loop.time()
    asked = set()
    n = 0
    while True:
        task = asyncio.create_task(ask(kind, n, make(n), port, source))
        asked.add(task)
        task.add_done_callback(asked.discard)
        n += 1
        due += KINDS[kind]
        await asyncio.sleep(due - loop.time())

async def stand_by(port, number, key):
    "Posts and both probes"
    posts, probes = POSTS.format(number), PROBES.format(number)
    await asyncio.gather(
        ask_always("post", lambda n: short_post(n, key), port, posts),
        ask_always("live", lambda n: get("/health/live"), port, probes),
        ask_always("ready", lambda n: get("/health/ready"), port, probes),
    )


@dataclass
class Seen:
    "One request of a bystander"
    kind:str
    n:int           # of its kind, from zero
    began:float     # as time.time() has it
    status:int      # zero where no answer came
    seconds:float

class Bystander(Beside):
    "What the process of this module saw"
    def __init__(self, host, key="", number=0):
        self.seen = []
        super().__init__("bench.serve_bystander", host.port, number, **{KEY: key or ""})

    def take(self, kind, n, began, status, seconds):
        self.seen.append(Seen(kind, int(n), float(began), int(status), float(seconds)))

    def between(self, start, end, *kinds):
        "What was sent in that time; the answers to the last of it are waited for by `settle`"
        return [seen for seen in list(self.seen) if start <= seen.began < end and seen.kind in kinds]

    def settle(self):
        "Wait until every post that was sent until now is answered or given up"
        now = time.time()
        while self.waits_for(now) and time.time() < now + PATIENCE + 2:
            time.sleep(0.1)

    def waits_for(self, now):
        "Whether a post that was sent until then has no answer yet: one of a smaller number than the first after it"
        posts = {each.n: each.began for each in list(self.seen) if each.kind == "post"}
        later = [n for n, began in posts.items() if began >= now]
        return not later or sum(n < min(later) for n in posts) < min(later)

def p95(seen):
    "Seconds; who got no judgement counts as one who waited in vain"
    waited = [each.seconds if each.status == 200 else PATIENCE for each in seen]
    return float(np.quantile(waited, .95)) if waited else PATIENCE

def statuses(seen):
    "Status → how often"
    return dict(sorted(Counter(each.status for each in seen).items()))


if __name__ == "__main__":
    asyncio.run(stand_by(int(sys.argv[1]), int(sys.argv[2]), os.environ.get(KEY)))
