"What strangers send who mean no good: each is sent to the running service, and its answers are counted"
import gzip
import io
import json
import re
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import wave
import zipfile
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from multimodal_fakes.media import write_clip
from multimodal_fakes.service.load import BOUNDARY, FORM, multipart, request

LEAKS = re.compile(
    rb'Traceback|site-packages|File "|/tmp/|/root/|/home/|/work/|/usr/lib|\.py\b|0x[0-9a-f]{8,}|object at|onnxruntime'
    rb'|multimodal_fakes\.')
CLOSE = {"Connection": "close"}


def say(port, raw, seconds=30, source="127.0.0.1"):
    "Status and whole answer to bytes as they are; zero where the connection was only closed"
    with socket.create_connection(("127.0.0.1", port), seconds, (source, 0)) as s:
        s.settimeout(seconds)
        for at in range(0, len(raw), 16384):
            answered, _, _ = select.select([s], [], [], 0)
            if answered:
                break                                           # refused before all of it was sent
            try:
                s.sendall(raw[at:at + 16384])
            except (BrokenPipeError, ConnectionResetError):
                break                                           # likewise; the answer may still be there to be read
        return hear(s)

def hear(s):
    "Status and answer, read until it is whole or the connection ends"
    answer = b""
    try:
        while not whole(answer):
            part = s.recv(65536)
            if not part:
                break
            answer += part
    except (ConnectionResetError, TimeoutError):
        pass
    return status_of(answer), answer

def status_of(answer):
    "Zero where it is no HTTP"
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0

def whole(answer):
    "Whether head and body are there"
    head, blank_line, body = answer.partition(b"\r\n\r\n")
    if not blank_line:
        return False
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")

def post(port, path, body, kind, headers=None):
    "Any body, over a connection of its own"
    return say(port, request(path, body, kind, (headers or {}) | CLOSE))

def upload(port, data, name="image", filename="post.jpg", kind="image/jpeg", path="/predict", text=None):
    "A file in a form"
    fields = {"text": text} if text else {}
    fields[name] = (filename, kind, data)
    return post(port, path, multipart(fields), FORM)

def as_json(port, path, body):
    "JSON, or whatever is sent as JSON"
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return post(port, path, raw, "application/json")


# ---- files
def make_sound(samples):
    "A WAV of bytes as they are"
    out = io.BytesIO()
    with wave.open(out, "wb") as w:
        w.setnchannels(1)
        w.setsampwidth(2)
        w.setframerate(16000)
        w.writeframes(samples)
    return out.getvalue()

def make_zip(name, data, compression=zipfile.ZIP_STORED):
    "An archive of one file"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as z:
        z.writestr(name, data)
    return out.getvalue()

def good_files():
    "One of each kind that is read, to be damaged"
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    files = {}
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF"):
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, kind)
        files[kind] = out.getvalue()
    with tempfile.TemporaryDirectory() as d:
        path = Path(d)/"a.mp4"
        write_clip(path, (np.roll(pixels, t, 1) for t in range(50)), 25)
        files["MP4"] = path.read_bytes()
    return files | {"WAV": make_sound(pixels.tobytes())}

def png_chunk(name, data):
    "A chunk with its length and checksum"
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

def png(w, h, *chunks, rows=b""):
    "A PNG of chunks as they are"
    header = struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)
    all_chunks = [(b"IHDR", header), *chunks, (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in all_chunks)

def damaged(rng, data, kind):
    "Cut short, without its beginning, its middle overwritten, or its header turned to noise"
    n = len(data)
    how = int(rng.choice([0, 1, 3] if kind == "GIF" else 4))          # noise in the palette of a GIF is a GIF
    if how == 0:
        return f"{kind}, cut short", data[:int(rng.integers(12, n // 3))]
    if how == 1:
        return f"{kind}, without its beginning", data[int(rng.integers(9, 40)):]
    if how == 2:
        return f"{kind}, header of noise", data[:12] + rng.bytes(min(200, n - 12)) + data[212:]
    return f"{kind}, all noise after its first bytes", data[:12] + rng.bytes(n - 12)

STRANGE = {  # what is no picture, whatever it says
    "empty": b"",
    "one byte": b"\xff",
    "a program": b"\x7fELF\x02\x01\x01" + bytes(400),
    "a script": b"#!/bin/sh\nrm -rf /\n",
    "HTML": b"<!doctype html><script>alert(1)</script>",
    "SVG that reads a file":
        b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        b'<svg xmlns="http://www.w3.org/2000/svg"><text>&x;</text></svg>',
    "PDF": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file",
    "pickle":
        b"\x80\x04\x95\x15\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.",
    "zip": None,     # made of a good picture
    "gzip": gzip.compress(b"x" * 1000),
    "playlist of files": b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1.0,\nfile:///etc/passwd\n#EXT-X-ENDLIST",
    "list of files to join": b"ffconcat version 1.0\nfile '/etc/passwd'",
    "ICNS": b"icns\x00\x00\x00\x10ic07\x00\x00\x00\x08",
    "FITS": b"SIMPLE  =                    T" + b" " * 2850,
}

def malformed(n=200, seed=0):
    "So many (what it is, field, bytes), from a seed"
    rng = np.random.default_rng(seed)
    good = good_files()
    strange = STRANGE | {"zip": make_zip("post.jpg", good["JPEG"])}
    files = [(name, field, data) for name, data in strange.items() for field in ("image", "video")]
    kinds = list(good)
    while len(files) < n:
        kind = kinds[len(files) % len(kinds)]
        name, data = damaged(rng, good[kind], kind)
        field = "video" if kind in ("MP4", "WAV") else "image"
        files.append((name, field, data))
    return files[:n]

def resize_header(jpeg, side=65_500):
    "A JPEG whose header claims another size"
    frames = (b"\xff\xc0", b"\xff\xc2")
    at = next(i for i in range(len(jpeg)) if jpeg[i:i + 2] in frames)
    return jpeg[:at + 5] + struct.pack(">HH", side, side) + jpeg[at + 9:]


# ---- small to send, large to open
def png_with(name):
    "A PNG with a compressed chunk of 200 MB"
    packed = zlib.compress(bytes(200_000_000), 9)
    rows = zlib.compress(bytes(64 * 193))
    return png(64, 64, (name, b"x\0\0" + packed), rows=rows)

def endless_tiff():
    "A list of pages that leads back to itself"
    entries = struct.pack("<H", 1) + struct.pack("<HHII", 256, 4, 1, 4_000_000_000)
    return b"II*\0\x08\0\0\0" + entries + struct.pack("<I", 8)

def picture_bombs():
    "What it is → function that sends it to a port"
    pictures = {
        "PNG of 60,000 × 60,000": png(60_000, 60_000, rows=zlib.compress(bytes(3_000_000), 9)),
        "JPEG of 65,500 × 65,500": resize_header(good_files()["JPEG"]),
        "TIFF whose pages go round": endless_tiff(),
        "PNG with a colour profile of 200 MB": png_with(b"iCCP"),
        "PNG with a comment of 200 MB": png_with(b"zTXt"),
        "zip of 100 MB as a picture": make_zip("a", bytes(100_000_000), zipfile.ZIP_DEFLATED),
    }
    return {name: partial(upload, data=data) for name, data in pictures.items()}

def send_gzipped(port):
    "A text of 100 MB in a body that says it is compressed"
    body = json.dumps({"text": "x" * 100_000_000}).encode()
    return post(port, "/classify", gzip.compress(body), "application/json", {"Content-Encoding": "gzip"})

def json_bombs():
    "What it is → function that sends it to a port"
    bodies = {
        "JSON nested 100,000 deep": ("/classify", lambda: b'{"text":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "number of 100,000 digits": ("/classify", lambda: b'{"text":' + b"9" * 100_000 + b"}"),
        "text of 3 MB": ("/classify", lambda: {"text": "x" * 3_000_000}),
        "JSON of 20 MB": ("/classify", lambda: {"text": "x" * 20_000_000}),
        "20,000 texts at once": ("/classify/batch", lambda: {"texts": ["x"] * 20_000}),
    }
    return {name: partial(send_json, path=path, make=make) for name, (path, make) in bodies.items()}

def send_json(port, path, make):
    "A body made when it is sent"
    return as_json(port, path, make())

def send_many_parts(port):
    "A form of 20,000 fields"
    fields = {f"f{i}": "x" for i in range(20_000)}
    return post(port, "/predict/batch", multipart(fields), FORM)

def send_large_field(port):
    "A form with a text of 30 MB"
    return post(port, "/predict", multipart({"text": "x" * 30_000_000}), FORM)

def send_open_form(port):
    "A form without its last line"
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="text"\r\n\r\n'
    return post(port, "/predict", head.encode() + b"x", FORM)

def send_large_picture(port):
    "40 MB that begin as a JPEG"
    return upload(port, b"\xff\xd8\xff\xe0" + bytes(40_000_000))

def lines(*parts):
    "Lines of HTTP as bytes, an empty one after them"
    return b"".join(part + b"\r\n" for part in parts) + b"\r\n"

def header_bombs():
    "What it is → function that sends it to a port"
    live = (b"GET /health/live HTTP/1.1", b"Host: a")
    ten_tb = lines(
        b"POST /predict HTTP/1.1",
        b"Host: a",
        b"Connection: close",
        b"Content-Type: multipart/form-data; boundary=x",
        b"Content-Length: 10000000000000",
    )
    two_lengths = lines(
        b"POST /classify HTTP/1.1",
        b"Host: a",
        b"Connection: close",
        b"Content-Length: 2",
        b"Content-Length: 9",
    )
    raw = {
        "header of 1 MB": lines(*live, b"X-A: " + b"x" * 1_000_000),
        "10,000 headers": lines(*live, *(b"X-%d: 1" % i for i in range(10_000))),
        "length of 10 TB announced": ten_tb + b"--x",
        "two lengths": two_lengths + b"{}",
        "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n",
    }
    return {name: partial(say, raw=data) for name, data in raw.items()}

def bombs():
    "Small to send, large to open: what it is → function that sends it to a port"
    forms = {
        "form of 20,000 parts": send_many_parts,
        "form with a text of 30 MB": send_large_field,
        "form that never ends": send_open_form,
        "picture of 40 MB": send_large_picture,
    }
    gzipped = {"body of 100 MB, gzipped": send_gzipped}
    return picture_bombs() | gzipped | json_bombs() | forms | header_bombs()


# ---- addresses
ADDRESSES = """
http://127.0.0.1/ https://127.0.0.1/ https://localhost/ https://LOCALHOST./ https://127.1/ https://127.0.1/
https://0/ https://0.0.0.0/ https://2130706433/ https://0x7f000001/ https://0x7f.0x0.0x0.0x1/
https://0177.0.0.1/ https://017700000001/ https://127.0.0.1.nip.io/ https://localtest.me/ https://[::1]/
https://[::]/ https://[0:0:0:0:0:0:0:1]/ https://[::ffff:127.0.0.1]/ https://[::ffff:7f00:1]/
https://[64:ff9b::7f00:1]/ https://[2002:7f00:1::]/ https://[fe80::1%25lo]/ https://[fd00::1]/
https://[ff02::1]/ https://10.0.0.1/ https://172.16.0.1/ https://192.168.0.1/ https://100.64.0.1/
https://169.254.169.254/latest/meta-data/ https://[fd00:ec2::254]/ https://metadata.google.internal/
https://198.18.0.1/ https://192.0.2.1/ https://224.0.0.1/ https://255.255.255.255/ https://①②⑦.⓪.⓪.①/
https://127。0。0。1/ https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/ https://media.example.org@127.0.0.1/
https://127.0.0.1#media.example.org/ https://127.0.0.1?media.example.org https://media.example.org.evil.test/
https://evil.test/media.example.org https://media.example.org:22/ https://media.example.org%00.evil.test/
https://media.example.org\\@127.0.0.1/ https:///127.0.0.1/ https:127.0.0.1 //127.0.0.1/ file:///etc/passwd
FILE:///etc/passwd ftp://127.0.0.1/ gopher://127.0.0.1:6379/_INFO dict://127.0.0.1:11211/
data:video/mp4;base64,AAAA jar:https://127.0.0.1!/ ldap://127.0.0.1/ concat:/etc/passwd|/etc/hosts
subfile,,start,0,end,9,,:/etc/passwd pipe:0 /etc/passwd ../../etc/passwd
""".split()
OWN_HOSTS = ("127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1")

def own_addresses(port):
    "Those of a listener of ours"
    return [f"{scheme}://{host}:{port}/a.mp4" for scheme in ("http", "https") for host in OWN_HOSTS]

def ssrf(port):
    """Answers to every notation, and how many connections came to a listener of ours.

    Some of the addresses carry its port."""
    came = []
    listener = socket.create_server(("127.0.0.1", 0))

    def listen():
        while True:
            try:
                came.append(listener.accept()[1])
            except OSError:
                return              # closed: the test is over

    threading.Thread(target=listen, daemon=True).start()
    urls = own_addresses(listener.getsockname()[1]) + ADDRESSES
    answers = {url: as_json(port, "/predict/video", {"video_url": url}) for url in urls}
    listener.close()
    return answers, len(came)


# ---- slowly
SLOW_STARTS = [     # of a request, cut in its line, its headers and its body
    b"POST /predict/",
    b"POST /predict HTTP/1.1\r\nHost: a\r\nX-A: ",
    lines(
        b"POST /predict HTTP/1.1",
        b"Host: a",
        b"Content-Type: multipart/form-data; boundary=x",
        b"Content-Length: 900000",
    ) + lines(b"--x", b'Content-Disposition: form-data; name="text"'),
]

def open_slow(port, start):
    "A connection with the start of a request in it"
    s = socket.create_connection(("127.0.0.1", port))
    s.sendall(start)
    s.setblocking(False)
    return s

def next_byte(s):
    "Sends one byte more; the answer, empty where the connection ended, none where nothing came"
    try:
        s.send(b"a")
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        pass                                # the answer is read below
    try:
        return s.recv(65536)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        return b""

def slow(port, n=60, seconds=25):
    """Clients that send a byte now and then, a third each in the line, the headers and the body.

    Number of the client → status, answer, and after how many seconds; status -1 where it was still open."""
    answers = {}
    began = time.monotonic()
    waiting = {i: open_slow(port, SLOW_STARTS[i % 3]) for i in range(n)}
    while waiting and time.monotonic() - began < seconds:
        for i, s in list(waiting.items()):
            answer = next_byte(s)
            if answer is None:
                continue
            answers[i] = (status_of(answer), answer, time.monotonic() - began)
            waiting.pop(i).close()
        time.sleep(0.5)
    for i, s in waiting.items():
        answers[i] = (-1, b"", seconds)
        s.close()
    return answers


# ---- all that the document allows
def schemathesis(port, folder, examples=40):
    "Requests made from the OpenAPI document: exit status (0 where no 5xx was found) and report"
    command = [
        str(Path(sys.executable).parent/"schemathesis"), "run", f"http://127.0.0.1:{port}/openapi.json",
        "--checks", "not_a_server_error",
        "--max-examples", str(examples),
        "--seed", "0",
        "--phases", "examples,coverage,fuzzing",
        "--request-timeout", "20",
        "--generation-database", "none",
        "--no-color",
        "--continue-on-failure",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1200)
    (Path(folder)/"schemathesis.log").write_text(done.stdout + done.stderr)
    return done.returncode, done.stdout
