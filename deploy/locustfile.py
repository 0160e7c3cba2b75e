"""Users of a running service, as Locust knows them: each sends a post, waits a moment, sends the next.

    pip install locust
    locust -f deploy/locustfile.py --host http://localhost:8000                 # and its page on http://localhost:8089
    locust -f deploy/locustfile.py --host http://localhost:8000 --headless --users 10 --run-time 30s

Two of three posts have a picture, and none comes twice, so that each is judged and no answer is one that the service
remembers. A 503 with Retry-After is what an overloaded service should answer, and the user waits as it asks; anything
else that is no answer is a failure. A service that others can reach wants a key (`--key`, or MMFAKES_KEY), and allows
it 600 requests a minute unless `access.per_minute` says otherwise."""
import os
import struct
import zlib
from itertools import count

import gevent
from locust import FastHttpUser, between, events, task

WIDTH, HEIGHT, SQUARE = 640, 480, 40        # pixels of a picture, and of the squares that it is made of
START = os.urandom(4).hex()                 # of the posts of this run
numbers = count()


@events.init_command_line_parser.add_listener
def add_key(parser):
    "What a service with keys asks for; also on Locust's page"
    parser.add_argument("--key", default="", env_var="MMFAKES_KEY", is_secret=True, help="of the service")


def chunk(kind, data):
    "A part of a PNG file"
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

def drawn():
    "A picture of squares of random colours"
    rows = b""
    for _ in range(HEIGHT // SQUARE):
        colours = os.urandom(3 * WIDTH // SQUARE)
        row = b"".join(colours[i:i + 3] * SQUARE for i in range(0, len(colours), 3))
        rows += (b"\0" + row) * SQUARE
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


class Poster(FastHttpUser):
    "One who posts"
    wait_time = between(0.1, 0.5)

    @task(2)
    def picture(self):
        files = {"image": ("post.png", drawn(), "image/png")}
        text = f"A picture of number {next(numbers)} of {START}"
        self.send("/predict", "text and picture", data={"text": text}, files=files)

    @task(1)
    def words(self):
        self.send("/classify", "text", json={"text": f"A headline of number {next(numbers)} of {START}"})

    def send(self, path, name, **body):
        key = self.environment.parsed_options.key
        headers = {"X-API-Key": key} if key else {}
        with self.client.post(path, name=name, catch_response=True, headers=headers, **body) as response:
            if response.status_code == 503 and "Retry-After" in response.headers:
                response.request_meta["name"] = f"{name}, refused with 503"
                response.success()
                gevent.sleep(float(response.headers["Retry-After"]))
            elif response.status_code == 200 and "confidence" in response.json():
                response.success()
            else:
                answer = (response.text or "")[:200]
                response.failure(f"{response.status_code}: {answer}")
