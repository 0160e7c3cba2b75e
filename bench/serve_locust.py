"""Users as Locust knows them: each sends a post, waits a moment, sends the next.

`locust -f bench/serve_locust.py --headless`

Two of three posts have a picture. A 503 with Retry-After is what an overloaded service should answer, and the user
waits as it asks; anything else that is no answer is a failure."""
import json
import os
from itertools import count
from pathlib import Path

from locust import FastHttpUser, between, task

from bench.serve_load import FORM, multipart
from bench.serve_posts import with_comment

PATHS = sorted(Path(os.environ["BENCH_PICTURES"]).glob("*.jpg"))[:64]
PICTURES = [path.read_bytes() for path in PATHS]
numbers = count()


class Poster(FastHttpUser):
    "One who posts"
    wait_time = between(0.1, 0.5)

    @task(2)
    def picture(self):
        n = next(numbers)
        image = with_comment(PICTURES[n % len(PICTURES)], n)
        body = multipart({"text": f"A picture of number {n}", "image": ("post.jpg", "image/jpeg", image)})
        self.send("/predict", body, FORM, "text and picture")

    @task(1)
    def words(self):
        body = json.dumps({"text": f"A headline of number {next(numbers)}"})
        self.send("/classify", body, "application/json", "text")

    def send(self, path, body, kind, name):
        headers = {"Content-Type": kind}
        with self.client.post(path, name=name, catch_response=True, data=body, headers=headers) as response:
            if response.status_code == 503 and "Retry-After" in response.headers:
                response.request_meta["name"] = f"{name}, refused with 503"
                response.success()
                self._wait(float(response.headers["Retry-After"]))
            elif response.status_code == 200 and "confidence" in response.json():
                response.success()
            else:
                answer = (response.text or "")[:200]
                response.failure(f"{response.status_code}: {answer}")

    def _wait(self, seconds):
        import gevent
        gevent.sleep(seconds)
