"""Users as Locust knows them: each sends a post, waits a moment, sends the next. `locust -f bench/serve_locust.py --headless`

Two of three posts have a picture. A 503 with Retry-After is what an overloaded service should say, and the user waits as it asks; anything else that is no answer is a failure."""
import json
import os
from itertools import count
from pathlib import Path

from locust import FastHttpUser, between, task

from bench.serve_load import BOUNDARY, multipart
from bench.serve_posts import with_comment

PICTURES = [p.read_bytes() for p in sorted(Path(os.environ["BENCH_PICTURES"]).glob("*.jpg"))[:64]]
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
numbers = count()


class Poster(FastHttpUser):
    "One who posts"
    wait_time = between(0.1, 0.5)

    @task(2)
    def picture(self):
        n = next(numbers)
        body = multipart({"text": f"A picture of number {n}", "image": ("post.jpg", "image/jpeg", with_comment(PICTURES[n % len(PICTURES)], n))})
        self.send("/predict", dict(data=body, headers=FORM), "text and picture")

    @task(1)
    def words(self): self.send("/classify", dict(data=json.dumps({"text": f"A headline of number {next(numbers)}"}), headers={"Content-Type": "application/json"}), "text")

    def send(self, path, what, name):
        with self.client.post(path, name=name, catch_response=True, **what) as r:
            if r.status_code == 503 and "Retry-After" in r.headers:
                r.request_meta["name"] = f"{name}, refused with 503"; r.success()
                self._wait(float(r.headers["Retry-After"]))
            elif r.status_code == 200 and "confidence" in r.json(): r.success()
            else: r.failure(f"{r.status_code}: {(r.text or '')[:200]}")

    def _wait(self, seconds):
        import gevent
        gevent.sleep(seconds)
