"A load generator that costs little: bodies made beforehand, one raw connection a client, kept open"
import asyncio
import base64
import json
import time
from dataclasses import dataclass, field

import numpy as np

BOUNDARY = "b7e1f9c2multimodalfakes"


def multipart(fields):
    "A form as bytes: text as it is, (name, type, bytes) as a file"
    parts = []
    for name, value in fields.items():
        about = f'name="{name}"' if isinstance(value, str) else f'name="{name}"; filename="{value[0]}"\r\nContent-Type: {value[1]}'
        parts += [f"--{BOUNDARY}\r\nContent-Disposition: form-data; {about}\r\n\r\n".encode(), value.encode() if isinstance(value, str) else value[2], b"\r\n"]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()

def request(path, body, kind, headers=None):
    "A whole POST as bytes"
    more = "".join(f"{k}: {v}\r\n" for k, v in (headers or {}).items())
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body

def as_form(path, post, headers=None):
    "Text and picture as a browser sends them"
    return request(path, multipart({"text": post["text"], "image": ("post.jpg", "image/jpeg", post["image"])}), f"multipart/form-data; boundary={BOUNDARY}", headers)

def as_json(path, post):
    "As BentoML takes what is to be batched: a list, pictures in base64"
    return request(path, json.dumps({"posts": [{"text": post["text"], "image": base64.b64encode(post["image"]).decode()}]}).encode(), "application/json")


@dataclass
class Load:
    "What came back"
    seconds:float
    latencies:list = field(default_factory=list)    # seconds, of each request
    answers:dict = field(default_factory=dict)      # number of the post → (status, body)

    @property
    def rate(self): return len(self.latencies) / self.seconds
    def quantile(self, q): return float(np.quantile(self.latencies, q))
    def statuses(self): return dict(zip(*(v.tolist() for v in np.unique([s for s, _ in self.answers.values()], return_counts=True))))

async def read_answer(reader):
    "Status and body"
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status, length = int(head.split(" ", 2)[1]), [line for line in head.split("\r\n") if line.startswith("content-length:")]
    if length: return status, await reader.readexactly(int(length[0].split(":")[1])), "connection: close" in head
    body = b""                                       # chunked
    while n := int(await reader.readline(), 16): body += await reader.readexactly(n); await reader.readexactly(2)
    await reader.readexactly(2)
    return status, body, "connection: close" in head

async def _client(port, todo, requests, load):
    "One client: the next post as soon as the last is answered"
    reader = writer = None
    for i in todo:
        if writer is None: reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        began = time.perf_counter()
        writer.write(requests[i])
        status, body, closed = await read_answer(reader)
        load.latencies.append(time.perf_counter() - began); load.answers[i] = (status, body)
        if closed: writer.close(); writer = None
    if writer: writer.close()

async def _all(port, requests, clients):
    load, todo, began = Load(0.0), iter(range(len(requests))), time.perf_counter()
    await asyncio.gather(*(_client(port, todo, requests, load) for _ in range(clients)))
    load.seconds = time.perf_counter() - began
    return load

def drive(
    port,
    requests,       # whole requests as bytes, each sent once
    clients=32,     # connections, each with one request in flight
) -> Load:
    "Send all, as fast as the answers come"
    return asyncio.run(_all(port, requests, clients))
