"What strangers send who mean no good: each is sent to the running service, and what it said is counted"
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
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from bench.serve_load import BOUNDARY, multipart, request
from multimodal_fakes.media import write_clip

LEAKS = re.compile(rb'Traceback|site-packages|File "|/tmp/|/root/|/home/|/work/|/usr/lib|\.py\b|0x[0-9a-f]{8,}|object at|onnxruntime|multimodal_fakes\.')


def say(port, raw, seconds=30):
    "Status and whole answer to bytes as they are; zero where the connection was only closed"
    with socket.create_connection(("127.0.0.1", port), seconds) as s:
        s.settimeout(seconds)
        for at in range(0, len(raw), 16384):
            if select.select([s], [], [], 0)[0]: break                # refused before all of it was sent
            try: s.sendall(raw[at:at + 16384])
            except (BrokenPipeError, ConnectionResetError): break     # likewise; the answer may still be there to be read
        return hear(s)

def hear(s):
    "Until the answer is whole or the connection ends"
    told = b""
    try:
        while not whole(told):
            part = s.recv(65536)
            if not part: break
            told += part
    except (ConnectionResetError, TimeoutError): pass
    return (int(told.split(b" ", 2)[1]) if told.startswith(b"HTTP/") else 0), told

def whole(told):
    "Whether head and body are there"
    head, found, body = told.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return bool(found) and (len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n"))

def upload(port, data, name="image", filename="post.jpg", kind="image/jpeg", path="/predict", text=None):
    "A file in a form"
    fields = ({"text": text} if text else {}) | {name: (filename, kind, data)}
    return say(port, request(path, multipart(fields), f"multipart/form-data; boundary={BOUNDARY}", {"Connection": "close"}))

def as_json(port, path, body):
    "JSON, or whatever is sent as JSON"
    return say(port, request(path, body if isinstance(body, bytes) else json.dumps(body).encode(), "application/json", {"Connection": "close"}))


# ---- files
def good_files():
    "One of each kind that is read, to be damaged"
    pixels, made = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8), {}
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF"): out = io.BytesIO(); Image.fromarray(pixels).save(out, kind); made[kind] = out.getvalue()
    with tempfile.TemporaryDirectory() as d:
        write_clip(Path(d)/"a.mp4", (np.roll(pixels, t, 1) for t in range(50)), 25)
        made["MP4"] = (Path(d)/"a.mp4").read_bytes()
    sound = io.BytesIO()
    with wave.open(sound, "wb") as w: w.setnchannels(1); w.setsampwidth(2); w.setframerate(16000); w.writeframes(pixels.tobytes())
    return made | {"WAV": sound.getvalue()}

def png(w, h, *chunks, rows=b""):
    "A PNG of chunks as they are"
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)) + b"".join(chunk(*c) for c in chunks) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")

def damaged(rng, data, kind):
    "Cut short, without its beginning, its middle overwritten, or its header turned to noise"
    n, how = len(data), int(rng.choice([0, 1, 3] if kind == "GIF" else 4))          # noise in the palette of a GIF is a GIF
    if how == 0: return f"{kind}, cut short", data[:int(rng.integers(12, n // 3))]
    if how == 1: return f"{kind}, without its beginning", data[int(rng.integers(9, 40)):]
    if how == 2: return f"{kind}, header of noise", data[:12] + rng.bytes(min(200, n - 12)) + data[212:]
    return f"{kind}, all noise after its first bytes", data[:12] + rng.bytes(n - 12)

STRANGE = {  # what is no picture, whatever it says
    "empty": b"", "one byte": b"\xff", "a program": b"\x7fELF\x02\x01\x01" + bytes(400), "a script": b"#!/bin/sh\nrm -rf /\n", "HTML": b"<!doctype html><script>alert(1)</script>", "SVG that reads a file": b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg xmlns="http://www.w3.org/2000/svg"><text>&x;</text></svg>',
    "PDF": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj", "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file", "pickle": b"\x80\x04\x95\x15\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.", "zip": None, "gzip": gzip.compress(b"x" * 1000),
    "playlist of files": b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1.0,\nfile:///etc/passwd\n#EXT-X-ENDLIST", "list of files to join": b"ffconcat version 1.0\nfile '/etc/passwd'", "ICNS": b"icns\x00\x00\x00\x10ic07\x00\x00\x00\x08", "FITS": b"SIMPLE  =                    T" + b" " * 2850,
}

def malformed(n=200, seed=0):
    "So many (what it is, field, bytes), from a seed"
    rng, good, out = np.random.default_rng(seed), good_files(), io.BytesIO()
    with zipfile.ZipFile(out, "w") as z: z.writestr("post.jpg", good["JPEG"])
    strange = STRANGE | {"zip": out.getvalue()}
    found = [(what, field, data) for what, data in strange.items() for field in ("image", "video")]
    kinds = list(good)
    while len(found) < n:
        kind = kinds[len(found) % len(kinds)]
        what, data = damaged(rng, good[kind], kind)
        found.append((what, "video" if kind in ("MP4", "WAV") else "image", data))
    return found[:n]

def bombs():
    "Small to send, large to open: (what it is, function that sends it to a port)"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as z: z.writestr("a", bytes(100_000_000))
    huge = png(60_000, 60_000, rows=zlib.compress(bytes(3_000_000), 9))
    profile, words = (png(64, 64, (name, b"x\0\0" + zlib.compress(bytes(200_000_000), 9)), rows=zlib.compress(bytes(64 * 193))) for name in (b"iCCP", b"zTXt"))
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHII", 256, 4, 1, 4_000_000_000) + struct.pack("<I", 8)      # a list of pages that leads back to itself
    field = lambda size: f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="text"\r\n\r\n'.encode() + b"x" * size + f"\r\n--{BOUNDARY}--\r\n".encode()
    form = f"multipart/form-data; boundary={BOUNDARY}"
    return {
        "PNG of 60,000 × 60,000": lambda p: upload(p, huge), "JPEG of 65,500 × 65,500": lambda p: upload(p, resize_header(good_files()["JPEG"])), "TIFF whose pages go round": lambda p: upload(p, tiff),
        "PNG with a colour profile of 200 MB": lambda p: upload(p, profile), "PNG with a comment of 200 MB": lambda p: upload(p, words),
        "zip of 100 MB as a picture": lambda p: upload(p, packed.getvalue()), "body of 100 MB, gzipped": lambda p: say(p, request("/classify", gzip.compress(json.dumps({"text": "x" * 100_000_000}).encode()), "application/json", {"Content-Encoding": "gzip", "Connection": "close"})),
        "JSON nested 100,000 deep": lambda p: as_json(p, "/classify", b'{"text":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "number of 100,000 digits": lambda p: as_json(p, "/classify", b'{"text":' + b"9" * 100_000 + b"}"),
        "text of 3 MB": lambda p: as_json(p, "/classify", {"text": "x" * 3_000_000}), "JSON of 20 MB": lambda p: as_json(p, "/classify", {"text": "x" * 20_000_000}), "20,000 texts at once": lambda p: as_json(p, "/classify/batch", {"texts": ["x"] * 20_000}),
        "form of 20,000 parts": lambda p: say(p, request("/predict/batch", multipart({f"f{i}": "x" for i in range(20_000)}), form, {"Connection": "close"})), "form with a text of 30 MB": lambda p: say(p, request("/predict", field(30_000_000), form, {"Connection": "close"})),
        "form that never ends": lambda p: say(p, request("/predict", f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="text"\r\n\r\nx'.encode(), form, {"Connection": "close"})), "picture of 40 MB": lambda p: upload(p, b"\xff\xd8\xff\xe0" + bytes(40_000_000)),
        "header of 1 MB": lambda p: say(p, b"GET /health/live HTTP/1.1\r\nHost: a\r\nX-A: " + b"x" * 1_000_000 + b"\r\n\r\n"), "10,000 headers": lambda p: say(p, b"GET /health/live HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: 1\r\n" % i for i in range(10_000)) + b"\r\n"),
        "length of 10 TB announced": lambda p: say(p, b"POST /predict HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 10000000000000\r\n\r\n--x"), "two lengths": lambda p: say(p, b"POST /classify HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\n{}"),
        "no HTTP": lambda p: say(p, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n"),
    }

def resize_header(jpeg, side=65_500):
    "A JPEG whose header claims another size"
    at = next(i for i in range(len(jpeg)) if jpeg[i:i + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return jpeg[:at + 5] + struct.pack(">HH", side, side) + jpeg[at + 9:]


# ---- addresses
ADDRESSES = """http://127.0.0.1/ https://127.0.0.1/ https://localhost/ https://LOCALHOST./ https://127.1/ https://127.0.1/ https://0/ https://0.0.0.0/ https://2130706433/ https://0x7f000001/ https://0x7f.0x0.0x0.0x1/ https://0177.0.0.1/
https://017700000001/ https://127.0.0.1.nip.io/ https://localtest.me/ https://[::1]/ https://[::]/ https://[0:0:0:0:0:0:0:1]/ https://[::ffff:127.0.0.1]/ https://[::ffff:7f00:1]/ https://[64:ff9b::7f00:1]/ https://[2002:7f00:1::]/
https://[fe80::1%25lo]/ https://[fd00::1]/ https://[ff02::1]/ https://10.0.0.1/ https://172.16.0.1/ https://192.168.0.1/ https://100.64.0.1/ https://169.254.169.254/latest/meta-data/ https://[fd00:ec2::254]/ https://metadata.google.internal/ https://198.18.0.1/
https://192.0.2.1/ https://224.0.0.1/ https://255.255.255.255/ https://①②⑦.⓪.⓪.①/ https://127。0。0。1/ https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/ https://media.example.org@127.0.0.1/ https://127.0.0.1#media.example.org/ https://127.0.0.1?media.example.org
https://media.example.org.evil.test/ https://evil.test/media.example.org https://media.example.org:22/ https://media.example.org%00.evil.test/ https://media.example.org\\@127.0.0.1/ https:///127.0.0.1/ https:127.0.0.1 //127.0.0.1/ file:///etc/passwd FILE:///etc/passwd
ftp://127.0.0.1/ gopher://127.0.0.1:6379/_INFO dict://127.0.0.1:11211/ data:video/mp4;base64,AAAA jar:https://127.0.0.1!/ ldap://127.0.0.1/ concat:/etc/passwd|/etc/hosts subfile,,start,0,end,9,,:/etc/passwd pipe:0 /etc/passwd ../../etc/passwd""".split()

def ssrf(port):
    "Every notation, with the port of a listener of ours in some of them; and how often somebody came to that listener"
    came, listener = [], socket.create_server(("127.0.0.1", 0))
    def listen():
        while True:
            try: came.append(listener.accept()[1])
            except OSError: return              # closed: the test is over
    threading.Thread(target=listen, daemon=True).start()
    own = [f"{scheme}://{host}:{listener.getsockname()[1]}/a.mp4" for scheme in ("http", "https") for host in ("127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1")]
    told = {url: as_json(port, "/predict/video", {"video_url": url}) for url in [*own, *ADDRESSES]}
    listener.close()
    return told, len(came)


# ---- slowly
def slow(port, n=60, seconds=25):
    "Clients that send a byte now and then, a third each in the line, the headers and the body; what they were told in the end, and after how long"
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\n"
    starts = [b"POST /predict/", head + b"X-A: ", head + b'Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 900000\r\n\r\n--x\r\nContent-Disposition: form-data; name="text"\r\n\r\n']
    told, began, open_ = {}, time.monotonic(), {}
    for i in range(n):
        s = socket.create_connection(("127.0.0.1", port)); s.sendall(starts[i % 3]); s.setblocking(False); open_[i] = s
    while open_ and time.monotonic() - began < seconds:
        for i, s in list(open_.items()):
            try: s.send(b"a")
            except (BlockingIOError, BrokenPipeError, ConnectionResetError): pass       # what was said is read below
            try: part = s.recv(65536)
            except BlockingIOError: continue
            except ConnectionResetError: part = b""
            told[i] = (int(part.split(b" ", 2)[1]) if part.startswith(b"HTTP/") else 0, part, time.monotonic() - began); open_.pop(i).close()
        time.sleep(0.5)
    for i, s in open_.items(): told[i] = (-1, b"", seconds); s.close()                  # still open: not refused
    return told


# ---- all that the document allows
def schemathesis(port, folder, examples=40):
    "Requests made from the OpenAPI document; its report, and whether it found a 5xx"
    command = [str(Path(sys.executable).parent/"schemathesis"), "run", f"http://127.0.0.1:{port}/openapi.json", "--checks", "not_a_server_error", "--max-examples", str(examples), "--seed", "0", "--phases", "examples,coverage,fuzzing", "--request-timeout", "20",
               "--generation-database", "none", "--no-color", "--continue-on-failure"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1200)
    (Path(folder)/"schemathesis.log").write_text(done.stdout + done.stderr)
    return done.returncode, done.stdout


def summary(told):
    "Statuses by count, and what leaked"
    statuses = Counter(status for status, *_ in told)
    return dict(sorted(statuses.items())), [answer[:300] for _, answer, *_ in told if LEAKS.search(answer)]
