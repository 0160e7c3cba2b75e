"Asks whether a service is ready, again and again, and prints status and seconds: `python -m bench.serve_probe URL EVERY`"
import sys
import time
import urllib.error
import urllib.request


def ask(url, seconds=10):
    "Status and body; zero where nobody answers"
    try:
        with urllib.request.urlopen(url, timeout=seconds) as r: return r.status, r.read()
    except urllib.error.HTTPError as e: return e.code, e.read()
    except OSError: return 0, b""


if __name__ == "__main__":
    while True:
        time.sleep(float(sys.argv[2]))
        began = time.perf_counter()
        status = ask(sys.argv[1])[0]
        print(status, time.perf_counter() - began, flush=True)
