"""Asks whether a service is ready, again and again, and prints status and seconds.

`python -m bench.serve_probe URL EVERY`"""
import sys
import time
import urllib.error
import urllib.request


def ask(url, seconds=10):
    "Status and body; zero where nobody answers"
    try:
        with urllib.request.urlopen(url, timeout=seconds) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()
    except OSError:
        return 0, b""


def main(url, every):
    while True:
        time.sleep(every)
        began = time.perf_counter()
        status, _ = ask(url)
        print(status, time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
