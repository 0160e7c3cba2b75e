"A load generator that costs little: bodies made beforehand, one raw connection a client, kept open"
import asyncio
import base64
import json
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

BOUNDARY = "b7e1f9c2multimodalfakes"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def part_of(name, value):
    "One field of a form: text as it is, (name, type, bytes) as a file"
    if isinstance(value, str):
        about, body = f'name="{name}"', value.encode()
    else:
        filename, kind, body = value
        about = f'name="{name}"; filename="{filename}"\r\nContent-Type: {kind}'
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; {about}\r\n\r\n"
    return head.encode() + body + b"\r\n"

def multipart(fields):
    "A form as bytes"
    parts = [part_of(name, value) for name, value in fields.items()]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()

def request(path, body, kind, headers=None):
    "A whole POST as bytes"
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        *(f"{k}: {v}" for k, v in (headers or {}).items()),
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode() + body

def as_form(path, post, headers=None):
    "Text and picture as a browser sends them"
    fields = {"text": post["text"], "image": ("post.jpg", "image/jpeg", post["image"])}
    return request(path, multipart(fields), FORM, headers)

def as_json(path, post):
    "As BentoML takes what is to be batched: a list, pictures in base64"
    image = base64.b64encode(post["image"]).decode()
    body = json.dumps({"posts": [{"text": post["text"], "image": image}]})
    return request(path, body.encode(), "application/json")


@dataclass
class Load:
    "What came back"
    seconds:float
    latencies:list = field(default_factory=list)    # seconds, of each request
    answers:dict = field(default_factory=dict)      # number of the post → (status, body)

    @property
    def rate(self):
        "Requests a second"
        return len(self.latencies) / self.seconds

    def quantile(self, q):
        "Of the latencies, seconds"
        return float(np.quantile(self.latencies, q))

    def statuses(self):
        "Status → answers, in the order of the statuses"
        counts = Counter(status for status, _ in self.answers.values())
        return dict(sorted(counts.items()))

async def read_chunks(reader):
    "A chunked body"
    body = b""
    while n := int(await reader.readline(), 16):
        body += await reader.readexactly(n)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return body

async def read_answer(reader):
    "Status, body, and whether the server closes the connection"
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    closed = "connection: close" in head
    lengths = [line for line in head.split("\r\n") if line.startswith("content-length:")]
    if lengths:
        n = int(lengths[0].split(":")[1])
        return status, await reader.readexactly(n), closed
    return status, await read_chunks(reader), closed

async def _client(port, todo, requests, load):
    "One client: the next post as soon as the last is answered"
    reader = writer = None
    for i in todo:
        if writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        began = time.perf_counter()
        writer.write(requests[i])
        status, body, closed = await read_answer(reader)
        load.latencies.append(time.perf_counter() - began)
        load.answers[i] = (status, body)
        if closed:
            writer.close()
            writer = None
    if writer:
        writer.close()

async def _all(port, requests, clients):
    load = Load(0.0)
    todo = iter(range(len(requests)))
    began = time.perf_counter()
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
