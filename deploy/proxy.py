"""nginx.conf tried: read by nginx, and before a service with the detectors of a folder.

`python deploy/proxy.py` lets nginx read it and compares it with the settings of the service; `--models models` also
starts both on loopback, with a certificate made for it, and asks: who the client is, what a forged address does, a
video of 20 MB, a body over the bound, a restart of the service. Without nginx or openssl it says so and ends."""
import argparse
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

import numpy as np
import yaml

from multimodal_fakes.core import FakesError
from multimodal_fakes.media import write_clip
from multimodal_fakes.service.access import make_key
from multimodal_fakes.service.respond import read_conf

HERE = Path(__file__).parent
NAME = "fakes.example.org"
CLIENT, STRANGER, FLOOD = "127.0.0.5", "127.0.0.6", "127.0.0.7"     # addresses of loopback, told apart in the log
FORGED = "203.0.113.9"
VIDEO_MB = 20


# ---- what is written
def setting(text, name):
    "The value of a line of nginx.conf"
    line = re.search(rf"^\s*{name}\s+([^;]+);", text, re.M)
    if not line:
        raise FakesError(f"nginx.conf lacks {name}")
    return line[1]

def seconds(text):
    "20s as a number"
    return float(text.removesuffix("s"))

def wrong_settings(text, conf):
    "Where nginx.conf does not fit the settings of the service"
    body = float(setting(text, "client_max_body_size").removesuffix("m"))
    if body != conf.limits.request_mb:
        yield f"nginx.conf: client_max_body_size {body:.0f}m, limits.request_mb is {conf.limits.request_mb:.0f}"
    kept = int(re.search(r"upstream.*?keepalive_timeout (\d+)s", text, re.S)[1])
    if kept >= conf.http.keep_alive:
        yield f"nginx.conf: connections to the service stay {kept} s, it closes them after {conf.http.keep_alive}"
    if seconds(setting(text, "proxy_read_timeout")) <= conf.engine.request_seconds:
        yield f"nginx.conf: an answer may take {conf.engine.request_seconds} s, proxy_read_timeout is shorter"
    if "$proxy_add_x_forwarded_for" in text or "X-Forwarded-For $remote_addr" not in text:
        yield "nginx.conf: X-Forwarded-For must be set to $remote_addr, or clients choose their address"


# ---- nginx on loopback
def free_ports(n):
    "Ports that nobody uses now"
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports

def make_certificate(folder):
    "A certificate for the name and its key, signed by itself"
    subprocess.run([
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", "2", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}",
        "-keyout", folder/"key.pem", "-out", folder/"fullchain.pem",
    ], check=True, capture_output=True)

def moved(text, folder, serve, https, plain):
    "nginx.conf with its files in a folder and its ports on loopback"
    changes = {
        "/etc/nginx/tls/": f"{folder}/",
        "/var/log/nginx/": f"{folder}/",
        "/var/lib/nginx/": f"{folder}/",
        "/run/nginx.pid": f"{folder}/nginx.pid",
        "127.0.0.1:8000": f"127.0.0.1:{serve}",
        "listen 443": f"listen 127.0.0.1:{https}",
        "listen 80": f"listen 127.0.0.1:{plain}",
    }
    if os.geteuid():
        changes["user www-data;"] = ""
    for old, new in changes.items():
        if old not in text:
            raise FakesError(f"nginx.conf lacks {old}: deploy/proxy.py replaces it to try the rest")
        text = text.replace(old, new)
    return text

def write_moved(folder, ports):
    "The file that nginx reads, in a folder that its workers can enter"
    make_certificate(folder)
    folder.chmod(0o755)
    path = folder/"nginx.conf"
    path.write_text(moved((HERE/"nginx.conf").read_text(), folder, *ports))
    return path

def nginx(path, *options):
    "The command, with all its files in one folder"
    return ["nginx", "-p", path.parent, "-c", path, "-e", path.parent/"start.log", *options]

def read_by_nginx(path):
    "Raises where nginx finds a fault"
    done = subprocess.run(nginx(path, "-t"), capture_output=True, text=True)
    if done.returncode or "[warn]" in done.stderr:
        raise FakesError(f"nginx -t: {done.stderr}")

@contextmanager
def proxy(path, port):
    "nginx until the end of the block"
    process = subprocess.Popen(nginx(path, "-g", "daemon off;"), stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: can_connect(port), 10, "nginx listens")
        yield
    finally:
        process.send_signal(signal.SIGQUIT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()

def can_connect(port):
    "Whether somebody listens there"
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False

def wait_for(check, most, what):
    "Raises where it does not come true within so many seconds"
    deadline = time.monotonic() + most
    while time.monotonic() < deadline:
        if check():
            return
        time.sleep(0.1)
    raise FakesError(f"Not within {most} s: {what}")


# ---- the service
class Serve:
    "The service on a port of loopback, behind a proxy at 127.0.0.1"
    def __init__(self, folder, models, port):
        self.port = port
        self.log = folder/"serve.log"
        with redirect_stdout(io.StringIO()):        # it prints the key
            key, line = make_key("tried", ("predict",))
        self.headers = {"X-API-Key": key}
        (folder/"keys.yaml").write_text(f"{line}\n")
        conf = dict(
            http=dict(port=port, hosts=[NAME], drain_seconds=5.0),
            engine=dict(models=str(models), n_workers=1),
            access=dict(keys=str(folder/"keys.yaml"), proxies=["127.0.0.1"]),
            log=dict(format="json", path=str(self.log), console=False),
        )
        self.conf = folder/"serve.yaml"
        self.conf.write_text(yaml.safe_dump(conf))

    def start(self):
        "Until it is ready"
        command = [sys.executable, "-m", "multimodal_fakes", "serve", "--conf", self.conf]
        self.process = subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.DEVNULL)
        wait_for(self.is_ready, 120, "the service is ready")

    def is_ready(self):
        "Asked directly"
        if self.process.poll() is not None:
            raise FakesError(f"The service ended with {self.process.returncode}")
        with suppress(OSError):
            return ask(http.client.HTTPConnection("127.0.0.1", self.port, 5), "GET", "/health/ready")[0] == 200
        return False

    def stop(self):
        "As at a restart"
        self.process.terminate()
        self.process.wait(60)

    def client_of(self, number):
        "Address that the log has for a request"
        def rows():
            return [line for line in self.log.read_text().splitlines() if number in line and '"client"' in line]
        wait_for(rows, 10, f"the log has a line about {number}")
        return re.search(r'"client": *"([^"]*)"', rows()[-1])[1]


# ---- questions
def ask(connection, method, path, body=None, headers=None):
    "Status, headers and body"
    with connection_closed(connection):
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()

@contextmanager
def connection_closed(connection):
    "Closed at the end"
    try:
        yield
    finally:
        connection.close()

class Front:
    "nginx as a client sees it"
    def __init__(self, folder, port, headers):
        self.port = port
        self.headers = headers
        self.trust = ssl.create_default_context(cafile=folder/"fullchain.pem")

    def connect(self, source=CLIENT, name=NAME, protocols=("http/1.1",)):
        "A TLS connection from an address, to a name"
        self.trust.set_alpn_protocols(list(protocols))
        plain = socket.create_connection(("127.0.0.1", self.port), 30, (source, 0))
        return self.trust.wrap_socket(plain, server_hostname=name)

    def ask(self, method, path, body=None, source=CLIENT, **headers):
        "Status, headers and body"
        connection = http.client.HTTPConnection(NAME, timeout=60)
        connection.sock = self.connect(source)
        return ask(connection, method, path, body, self.headers | headers)

    def judge(self, text, **headers):
        "A short post"
        kind = {"Content-Type": "application/json"}
        return self.ask("POST", "/classify", json.dumps({"text": text}), **kind | headers)

def large_clip(folder):
    "A clip with a box of zeros that no reader minds, so that it is large"
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    write_clip(folder/"a.mp4", (np.roll(pixels, t, 1) for t in range(50)), 25)
    size = VIDEO_MB * 2**20
    return (folder/"a.mp4").read_bytes() + size.to_bytes(4, "big") + b"free" + bytes(size - 8)

def video_form(clip):
    "Kind and body of a form"
    head = b'--x\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\nContent-Type: video/mp4\r\n\r\n'
    return "multipart/form-data; boundary=x", head + clip + b"\r\n--x--\r\n"

def asks_for_too_much(front, most_mb):
    "Status of a request that says it is larger than it may be, before its body"
    with front.connect() as s:
        s.sendall(
            f"POST /predict HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            f"Content-Length: {int(most_mb * 2**20) + 1}\r\n\r\n".encode())
        return int(s.recv(4096).split(b" ", 2)[1])

def refuses_name(front, name):
    "Whether a handshake for another name fails"
    try:
        front.connect(name=name).close()
    except ssl.SSLError:
        return True
    return False


# ---- tried
def try_ordinary(front, serve, folder, most_mb):
    "Claims about what clients send"
    status, headers, _ = front.judge("A headline", **{"X-Request-ID": "asked.1"})
    yield "a post with a key is answered over https", status == 200
    yield "the browser is told to keep to https", "Strict-Transport-Security" in headers
    with front.connect(protocols=("h2", "http/1.1")) as s:
        yield "HTTP/2 is offered", s.selected_alpn_protocol() == "h2"
    yield "the service sees the client's address", serve.client_of("asked.1") == CLIENT
    forged = {"X-Forwarded-For": FORGED, "Forwarded": f"for={FORGED}", "X-Forwarded-Host": "evil.test"}
    status, *_ = front.judge("Another headline", **forged, **{"X-Request-ID": "forged.2"})
    yield "a forged address does not count", serve.client_of("forged.2") == CLIENT
    yield "nor does a forged host", status == 200
    kind, body = video_form(large_clip(folder))
    status, _, answer = front.ask("POST", "/predict/video", body, **{"Content-Type": kind})
    yield f"a video of {VIDEO_MB} MB is taken ({status})", status == 202 and "id" in json.loads(answer)
    yield "a body over the bound is 413", asks_for_too_much(front, most_mb) == 413

def try_doors(front, serve):
    "Claims about what must stay shut"
    connection = http.client.HTTPConnection("127.0.0.1", serve.port, 10, source_address=(STRANGER, 0))
    ask(connection, "GET", "/models", None, serve.headers | {"X-Forwarded-For": FORGED, "X-Request-ID": "direct.3"})
    yield "who is no proxy cannot forge, asked directly", serve.client_of("direct.3") == STRANGER
    for path in ("/health/ready", "/health", "/metrics"):
        yield f"{path} is not there from outside", front.ask("GET", path)[0] == 404
    yield "another name is refused", refuses_name(front, "evil.test")
    flood = [front.ask("GET", "/models", source=FLOOD)[0] for _ in range(200)]
    yield f"a flood from one address is 429 ({flood.count(429)} of 200)", 429 in flood
    yield "others are answered meanwhile", front.judge("Third headline")[0] == 200

def try_restart(front, serve):
    "Claims about a service that goes and comes back"
    serve.stop()
    status, headers, body = front.judge("Nobody is there")
    yield f"without the service 503 with Retry-After ({status})", status == 503 and "Retry-After" in headers
    yield "and a problem as JSON", json.loads(body)["status"] == 503
    serve.start()
    yield "after its restart posts are answered again", front.judge("Back again")[0] == 200

def try_all(folder, models, path, ports, most_mb):
    "Every claim and whether it holds"
    serve_port, https, _ = ports
    serve = Serve(folder, models, serve_port)
    serve.start()
    front = Front(folder, https, serve.headers)
    try:
        with proxy(path, https):
            yield from try_ordinary(front, serve, folder, most_mb)
            yield from try_doors(front, serve)
            yield from try_restart(front, serve)
    finally:
        serve.stop()

def main(argv=None):
    parser = argparse.ArgumentParser(description="Try deploy/nginx.conf")
    parser.add_argument("--models", type=Path, help="folder of detectors, one of them for videos")
    args = parser.parse_args(argv)
    conf = read_conf(HERE/"k8s/serve.yaml")
    if wrong := [*wrong_settings((HERE/"nginx.conf").read_text(), conf)]:
        sys.exit("\n".join(wrong))
    missing = [name for name in ("nginx", "openssl") if not shutil.which(name)]
    if missing:
        print(f"{' and '.join(missing)} not here: nginx.conf was held against the settings only")
        return
    with tempfile.TemporaryDirectory() as d:
        folder, ports = Path(d), free_ports(3)
        path = write_moved(folder, ports)
        read_by_nginx(path)
        most_mb = conf.limits.request_mb
        claims = list(try_all(folder, args.models.resolve(), path, ports, most_mb)) if args.models else []
    for claim, holds in claims:
        print(f"  {'yes' if holds else 'NO '} {claim}")
    if not all(holds for _, holds in claims):
        sys.exit("nginx.conf does not do what deploy/README.md says")
    print("deploy: nginx.conf is read" + (", and does what the guide says" if claims else ""))

if __name__ == "__main__":
    try:
        main()
    except FakesError as e:
        sys.exit(str(e))
