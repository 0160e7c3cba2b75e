"What strangers do to keep a service from everybody else: one function an attack, told by its first line"
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import cache
from itertools import cycle

import psutil

from bench.serve_hostile import LEAKS, malformed, say
from bench.serve_scans import clip_of_scans, jpeg_of_scans
from bench.serve_scene import Attack, body_of, comes_true, metric, refused
from multimodal_fakes.core import root
from multimodal_fakes.workspace import link_data, profile_settings, refresh

FREE = dict(per_minute=0)       # no limit of requests
ATTACKS = {}

def attack(name, keys=False, files=None, **sections):
    "Enter a function among the attacks"
    def keep(launch):
        ATTACKS[name] = Attack(name, launch, keys, files, sections)
        return launch
    return keep


# ---- work that does not end
@cache
def scans_picture(n):
    "A JPEG of 90 to 260 KB that takes 0.03 s a scan to decode"
    return jpeg_of_scans(6300, 6300, n)

@cache
def scans_clip():
    "An AVI of 4 MB whose frames take long, each"
    return clip_of_scans(3840, 2160, 5000, 30)

TOO_MANY, MANY = 3000, 190       # scans: more than are decoded, and nearly as many

def picture_of_scans(scene, n):
    "One such picture, never twice the same"
    picture = scans_picture(n) + os.urandom(8)
    return scene.form("/predict", {"image": ("a.jpg", "image/jpeg", picture)})

def clip_as_job(scene, clip):
    "Id of the job, none where it was refused"
    fields = {"task": scene.detectors.video, "video": ("a.avi", "video/x-msvideo", clip)}
    _, answer = scene.send(scene.form("/predict/video", fields))
    return body_of(answer).get("id")

def cancel(scene, job):
    "State of a job that was cancelled"
    return body_of(scene.send(scene.get(f"/jobs/{job}", "DELETE"))[1]).get("state")

@attack("pictures of scans")
def starve_pictures(scene):
    "Eight clients post JPEGs of 3,000 scans, and of 190, each six seconds of work"
    seen = {TOO_MANY: [], MANY: []}
    def post():
        for n, statuses in seen.items():
            status, _ = scene.send(picture_of_scans(scene, n))
            statuses.append(status)
            if status in (429, 503):
                time.sleep(1)
    scene.together(8, post)
    scene.claims["pictures of 3,000 scans are refused"] = all(map(refused, seen[TOO_MANY]))
    scene.claims["those of 190 are judged or refused"] = all(refused(n) or n == 200 for n in seen[MANY])

def cpu_of_workers(host):
    "Seconds of processor time of all processes but the first"
    total = 0.0
    for process in host.tree()[1:]:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total

def at_rest(host, seconds=2.0):
    "Whether workers do nothing to speak of"
    before = cpu_of_workers(host)
    time.sleep(seconds)
    return cpu_of_workers(host) - before < 0.35 * seconds       # the bystander's posts are in it

@attack("clips of scans")
def starve_videos(scene):
    "Three jobs with clips of such frames, cancelled at the end"
    jobs = [clip_as_job(scene, scans_clip() + os.urandom(8)) for _ in range(3)]
    scene.wait()
    scene.stop_watching()
    states = {cancel(scene, job) for job in jobs if job}
    scene.claims["a job is cancelled or has failed"] = states <= {"cancelled", "failed"}
    scene.claims["nobody works for a cancelled job"] = comes_true(lambda: at_rest(scene.host), 6)

@attack("cancelled jobs")
def cancelled_jobs(scene):
    "Thirty clips of 8 MB sent as jobs and cancelled at once"
    noise = b"\0\0\0\x20ftypisom" + os.urandom(8 * 2**20)
    states = []
    for _ in range(30):
        job = clip_as_job(scene, noise + os.urandom(8))
        if job:
            states.append(cancel(scene, job))
        time.sleep(0.4)
    scene.wait()
    scene.claims["a job is cancelled or has failed"] = set(states) <= {"cancelled", "failed"}
    held = metric(scene, "mmfakes_upload_bytes")
    scene.claims["no bytes are held"] = sum(held.values()) < 2**20


# ---- bodies
MOST = 4 * 2**20 - 100      # of a JSON body, but for its ends

def filled(head, piece, tail):
    "A body of 4 MB"
    return head + piece * ((MOST - len(head) - len(tail)) // len(piece)) + tail

@cache
def json_bodies():
    "What it is → path and body"
    keys = b"".join(b',"%x":1' % i for i in range(MOST // 9))
    deep = b"[" * 190 + b"]" * 190
    return {
        "numbers for texts": ("/classify/batch", filled(b'{"texts":[', b"1,", b"1]}")),
        "empty texts": ("/classify/batch", filled(b'{"texts":[', b'"",', b'""]}')),
        "texts of one letter": ("/classify/batch", filled(b'{"texts":[', b'"a",', b'"a"]}')),
        "nulls for texts": ("/classify/batch", filled(b'{"texts":[', b"null,", b"null]}")),
        "unknown names": ("/classify", b'{"text":"a"' + keys + b"}"),
        "a number of 4 MB": ("/classify", filled(b'{"text":', b"9", b"}")),
        "a name of 4 MB": ("/classify", filled(b'{"text":"a","', b"k", b'":1}')),
        "a text of 4 MB": ("/classify", filled(b'{"text":"', b"k", b'"}')),
        "a task of 4 MB": ("/classify", filled(b'{"text":"a","task":"', b"k", b'"}')),
        "a label of 4 MB": ("/feedback", filled(b'{"prediction_id":"x","label":["', b"<object", b'"]}')),
        "lists 100,000 deep": ("/classify", b'{"text":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "deep settings": ("/train/text", b'{"task":"clickbait","settings":{"epochs":' + deep + b"}}"),
    }

@attack("JSON bombs")
def json_bombs(scene):
    "Two clients send bodies of 4 MB that are wrong a million times"
    bodies = [scene.json(path, body) for path, body in json_bodies().values()]
    sizes = []
    def send_all():
        for raw in bodies:
            if scene.goes_on():
                sizes.append(len(scene.send(raw)[1]))
                time.sleep(0.1)
    scene.together(2, send_all)
    scene.all_refused()
    scene.claims["an answer has at most 32 KB"] = max(sizes) <= 32 * 1024

HALF = b'--x\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\nContent-Type: video/mp4\r\n\r\n'

def half_body(scene, megabytes=10):
    "A form of 60 MB of which a part comes at once and the rest slowly"
    lines = [
        "POST /predict HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: multipart/form-data; boundary=x",
        "Content-Length: 60000000",
        *(f"{k}: {v}" for k, v in scene.headers().items()),
    ]
    head = "".join(f"{line}\r\n" for line in [*lines, ""]).encode()
    with socket.create_connection(("127.0.0.1", scene.host.port), 10) as s:
        s.sendall(head + HALF)
        for _ in range(megabytes):
            s.sendall(bytes(2**20))
        while scene.goes_on():
            s.sendall(bytes(10_000))
            time.sleep(0.5)

def try_half_body(scene, megabytes=10):
    "One that is closed is tried again a moment later"
    try:
        half_body(scene, megabytes)
    except OSError:
        time.sleep(1)

@attack("half bodies")
def half_bodies(scene):
    "Sixty clients send 10 MB of a form and then a little now and then"
    scene.together(60, lambda: try_half_body(scene))


NEIGHBOUR = "127.0.0.5"      # address of somebody who sends clips meanwhile
CLIP = b"\0\0\0\x20ftypisom" + bytes(8 * 2**20)

@attack("one client holds what it can")
def hold_much(scene):
    "Sixty uploads of 12 MB that never end, from one address; from another a clip of 8 MB every five seconds, as a job"
    fields = {"task": scene.detectors.video, "video": ("a.mp4", "video/mp4", CLIP)}
    raw = scene.form("/predict/video", fields)
    taken, held = [], []
    def neighbour():
        while scene.goes_on():
            time.sleep(5)
            taken.append(say(scene.host.port, raw, source=NEIGHBOUR)[0])
            held.append(metric(scene, "mmfakes_upload_bytes").get('{where="most"}', 0))
    beside = threading.Thread(target=neighbour, daemon=True)
    beside.start()
    scene.together(60, lambda: try_half_body(scene, 12))
    beside.join()
    scene.answers += taken
    scene.claims["somebody else's jobs are taken"] = set(taken) == {202}
    scene.claims["one client holds at most half"] = 128 * 2**20 < max(held) <= 256 * 2**20


# ---- connections
def is_open(s):
    "Whether the other end has not closed it"
    try:
        return s.recv(4096, socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False

def keep_open(held, port, n):
    "Fill up a list of idle connections"
    for s in [s for s in held if not is_open(s)]:
        s.close()
        held.remove(s)
    with suppress(OSError):
        while len(held) < n:
            held.append(socket.create_connection(("127.0.0.1", port), 1))

def idle_connections(scene, n=2100):
    "Connections that are opened and say nothing; half-way a worker is killed"
    held = []
    half = (time.monotonic() + scene.ends) / 2
    workers = scene.host.tree()[1:]
    killed = False
    while scene.goes_on():
        keep_open(held, scene.host.port, n)
        if not killed and time.monotonic() > half:
            busiest = max(workers, key=lambda p: p.memory_info().rss)
            busiest.kill()
            killed = True
        time.sleep(0.2)
    scene.stop_watching()
    scene.claims["a killed worker is replaced meanwhile"] = len(scene.host.tree()[1:]) >= len(workers)
    for s in held:
        s.close()

@attack("idle connections, 4,096 files", files=4096)
def idle_4096(scene):
    "2,100 idle connections from one address"
    idle_connections(scene)

@attack("idle connections, 1,024 files", files=1024)
def idle_1024(scene):
    "2,100 idle connections to a service that may have 1,024 files open"
    idle_connections(scene)

def hang_up(scene, picture):
    "Send a post and be gone"
    raw = scene.form("/predict", {"text": "gone", "image": ("a.jpg", "image/jpeg", picture)})
    with suppress(OSError), socket.create_connection(("127.0.0.1", scene.host.port), 5) as s:
        s.sendall(raw)

@attack("hang up", access=FREE)
def hang_ups(scene):
    "Four clients send posts and hang up, forty a second, without a limit of requests"
    pictures = iter(scene.stock.picture(i, 17) for i in range(10**6))
    lock = threading.Lock()
    def post():
        with lock:
            picture = next(pictures)
        hang_up(scene, picture)
    scene.together(4, post, pause=0.1)
    def waiting():
        return metric(scene, "mmfakes_engine").get('{what="waiting"}', 1.0)
    scene.claims["nothing waits for those who are gone"] = comes_true(lambda: waiting() <= 2, 5)

def read_slowly(scene, asked=100):
    "Ask for the longest answer many times and read some bytes a second"
    raw = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * asked
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.settimeout(5)
        with suppress(OSError):
            s.connect(("127.0.0.1", scene.host.port))
            s.sendall(raw)
            while scene.goes_on() and s.recv(16):
                time.sleep(1)

@attack("slow readers")
def slow_readers(scene):
    "Eighty clients ask for the document ten or a hundred times each and hardly read"
    asked = cycle((10, 100))
    scene.together(80, lambda: read_slowly(scene, next(asked)), pause=1.0)


# ---- floods
@attack("flood with one key", keys=True)
def key_flood(scene):
    "Sixteen clients with one key post short texts, about 300 a second"
    def post():
        scene.send(scene.json("/classify", {"text": f"flood {os.urandom(8).hex()}"}))
    scene.together(16, post, pause=0.05)
    scene.claims["what is over the limit is 429"] = 429 in scene.answers
    scene.claims["nothing is lost"] = set(scene.answers) <= {200, 429, 503}

@attack("flood of batches", keys=True, access=dict(burst=40))
def batch_flood(scene):
    "Eight clients with one key post batches of 32; once one of 64, where 40 requests may come at once"
    large = {"texts": [f"large {os.urandom(8).hex()}" for _ in range(64)]}
    status, _ = scene.send(scene.json("/classify/batch", large))
    scene.claims["a batch over the burst is not told to wait"] = status in (200, 413, 422)
    def post():
        texts = [f"flood {os.urandom(8).hex()}" for _ in range(32)]
        scene.send(scene.json("/classify/batch", {"texts": texts}))
    scene.together(8, post, pause=0.1)
    scene.claims["nothing is lost"] = set(scene.answers) <= {200, 413, 422, 429, 503}

@attack("one key without a limit", keys=True, access=FREE)
def fair_share(scene):
    "One key keeps twelve posts with pictures under way all the time, none of them refused"
    numbers = iter(range(10**6))
    def post():
        fields = {"text": "mine", "image": ("a.jpg", "image/jpeg", scene.stock.picture(next(numbers), 23))}
        scene.send(scene.form("/predict", fields))
    scene.together(12, post)
    scene.claims["nothing is lost"] = set(scene.answers) <= {200, 429, 503, 504}


# ---- storage, training
@contextmanager
def locked(path):
    "A SQLite database that another program writes to"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()

@attack("locked history", history=dict(url="sqlite:///{home}/attacked.db"))
def history_locked(scene):
    "Another program holds the history's database while three clients post"
    def post():
        scene.send(scene.json("/classify", {"text": f"kept {os.urandom(8).hex()}"}))
    with locked(scene.stock.home/"attacked.db"):
        scene.together(3, post, pause=0.5)
        lost = sum(metric(scene, "mmfakes_history_lost_total").values())
    scene.claims["every post is answered"] = set(scene.answers) == {200}
    scene.claims["what is not stored is counted"] = lost > 0

def has_mark(process, mark):
    "Whether a process was started for a run"
    with suppress(psutil.Error):
        return process.environ().get("MMFAKES_RUN") == mark
    return False

def processes_of(run):
    "Processes of a training run, wherever they hang"
    return [process for process in psutil.process_iter() if has_mark(process, run)]

@cache
def training_project(home):
    "The project of the pilot's headlines alone, in a folder of its own, with few of them"
    datasets = home/"training"
    command = [sys.executable, "-m", "multimodal_fakes.pilots.pilot", str(datasets)]
    options = ["--dataset", "pilot_clickbait", "--scale", "0.3"]
    subprocess.run([*command, *options], check=True, cwd=root(), capture_output=True)
    work = home/"training_project"
    refresh(root(), work, profile_settings("headlines", root()))
    link_data(work, datasets)
    return work

TRAIN = dict(enabled=True, project="{home}/training_project", datasets="Datasets", folder="{home}/training_runs")
BEFORE_STAGES = ("", "workspace", "scan")       # what a run does first

def step_of(scene, run):
    "What a run is doing"
    return body_of(say(scene.host.port, scene.get(f"/train/{run}"))[1]).get("step") or ""

@attack("service killed while it trains", train=TRAIN)
def train_orphan(scene):
    "SIGKILL of the service during a training run, and another start"
    _, answer = scene.send(scene.json("/train/text", {"task": "clickbait", "settings": {"epochs": 300}}))
    run = body_of(answer).get("run_id", "")
    scene.wait()
    scene.stop_watching()
    comes_true(lambda: step_of(scene, run) not in BEFORE_STAGES, 60)
    scene.claims["a stage runs when the service is killed"] = bool(processes_of(run))
    scene.host.process.kill()
    scene.host.process.wait()
    scene.claims["its processes end with the service"] = comes_true(lambda: not processes_of(run), 5)
    scene.host.start()
    scene.claims["no process of it is left after another start"] = comes_true(lambda: not processes_of(run), 5)
    told = body_of(say(scene.host.port, scene.get(f"/train/{run}"))[1])
    scene.claims["the run is said to have failed"] = told.get("state") == "failed"
    for process in processes_of(run):
        with suppress(psutil.NoSuchProcess):
            process.kill()


# ---- what answers say, and whom the service believes
DAMAGED = {     # what a decoder trips over
    "BMP": b"BM" + b"A" * 30,
    "TIFF": b"II*\0" + b"x" * 40,
    "AVIF": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + b"\0\0\0\x20meta" + b"\xff" * 300,
    "AVI": b"RIFF\x10\0\0\0AVI " + bytes(300),
}
FOREIGN = ("evil.test", "127.0.0.1.evil.test", "evil.test:80", "localhost.evil.test", "10.0.0.1")
ABSURD = {
    "epochs of 4,000 digits": b'{"task":"clickbait","settings":{"epochs":1' + b"0" * 4000 + b"}}",
    "a million million epochs": b'{"task":"clickbait","settings":{"epochs":1000000000000}}',
    "a batch of a million million": b'{"task":"clickbait","settings":{"batch_size":1000000000000}}',
    "no number": b'{"task":"clickbait","settings":{"lr":NaN}}',
    "without end": b'{"task":"clickbait","settings":{"lr":1e999}}',
}

@cache
def damaged_pictures(n=60):
    "Pictures that are none or were damaged, from a seed"
    return [data for _, field, data in malformed(n) if field == "image"]

def damaged_posts(scene):
    "Damaged files alone, and pictures beside a text"
    for data in damaged_pictures():
        yield scene.form("/predict", {"text": "a red car", "image": ("a.jpg", "image/jpeg", data)})
    for name, data in DAMAGED.items():
        kind = "video" if name == "AVI" else "image"
        fields = {kind: (f"a.{name.lower()}", f"{kind}/{name.lower()}", data)}
        yield scene.form("/predict", fields)
        if kind == "image":
            yield scene.form("/predict", {"text": "a red car"} | fields)

def say_nothing(scene):
    "Claims of what answers about damaged files tell"
    answers = [scene.send(raw) for raw in damaged_posts(scene)]
    bodies = b"\n".join(answer.partition(b"\r\n\r\n")[2] for _, answer in answers)
    scene.claims["damaged files are no error of the service's"] = all(200 <= status < 500 for status, _ in answers)
    scene.claims["no address, path or module in an answer"] = not LEAKS.search(bodies)

def believe_nobody(scene):
    "Claims of forms from other pages, names of other hosts, and absurd settings"
    body = {"text": "a red car"}
    cross = {"Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"}
    status, _ = scene.send(scene.form("/predict", body, **cross))
    scene.claims["a form from another site gets nothing"] = 400 <= status < 500
    hosts = [scene.send(scene.json("/classify", body).replace(b"Host: 127.0.0.1", f"Host: {host}".encode()))[0]
             for host in FOREIGN]
    scene.claims["other Host names get nothing"] = all(400 <= status < 500 for status in hosts)
    local = [scene.send(scene.json("/classify", body).replace(b"Host: 127.0.0.1", b"Host: " + host))[0]
             for host in (b"localhost", b"127.0.0.1:8000", b"[::1]")]
    scene.claims["local Host names are answered"] = set(local) == {200}
    runs = [scene.send(scene.json("/train/text", body))[0] for body in ABSURD.values()]
    scene.claims["absurd settings of /train are 422"] = set(runs) == {422}

@attack("strangers", access=dict(per_minute=600), train=TRAIN)
def strangers(scene):
    "Damaged files, forms of other sites, other Host names, absurd settings, then posts from forged addresses"
    say_nothing(scene)
    believe_nobody(scene)
    forged = []
    def post():
        address = ".".join(str(n) for n in os.urandom(4))
        raw = scene.json("/classify", {"text": "forged"}, **{"X-Forwarded-For": address})
        forged.append(scene.send(raw)[0])
    scene.together(4, post, pause=0.05)
    scene.claims["forged addresses count as one"] = 429 in forged
