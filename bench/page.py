"""The page in a real browser: every kind of upload, a refused one, the API gone and back, a phone, keys alone, 50
visitors at once, 2,000 uploads.

`python -m bench page [part …]` over the detectors of models/, or of the folder that PAGE_MODELS names. It needs
playwright (`uv pip install playwright` into an environment of its own that sees this one's packages) and a Chromium,
/usr/bin/chromium or the one that CHROMIUM names. Screenshots lie in `_scratch/page`: look at them."""
import io
import os
import platform
import socket
import subprocess
import sys
import time
import wave
from collections.abc import Callable
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
from PIL import Image

from multimodal_fakes.core import FakesError, nearest, root
from multimodal_fakes.media import write_clip

MODELS = Path(os.environ.get("PAGE_MODELS", root()/"models"))
CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
SHOTS = root()/"_scratch/page"
VISITORS, UPLOADS, AT_ONCE, LOOK_EVERY = 50, 2000, 10, 200
GROWTH = 40.0           # MiB that memory may rise from the first look to the last
PHONE = dict(width=390, height=844)
HEADLINE = "You will not believe what this garden did next"
BOX, SURE = "A text, a picture, a video or a sound", "100 answers as sure as this one"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]


def missing() -> str:
    "What keeps a browser from being driven here, empty if nothing does"
    if not find_spec("playwright"): return "playwright is not installed"
    return "" if CHROMIUM.exists() else f"there is no {CHROMIUM}"


# ---- what is started
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe: return probe.getsockname()[1]


@contextmanager
def started(verb, *options, port=0):
    "`mmfakes app` or `serve` on loopback: its process and its address"
    port = port or free_port()
    command = [sys.executable, "-m", "multimodal_fakes", verb, *options, "--port", str(port)]
    SHOTS.mkdir(parents=True, exist_ok=True)
    with open(SHOTS/f"{verb}.log", "a") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=root())
        try:
            once_listening(port, process)
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def once_listening(port, process, seconds=60):
    "Wait until something listens; raises where the process ends before"
    for _ in range(10 * seconds):
        if process.poll() is not None: break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0: return
        time.sleep(0.1)
    raise FakesError(f"Nothing listens at port {port}: see the logs in {SHOTS}.")


@contextmanager
def browser():
    "A Chromium without a window"
    if missing(): raise FakesError(f"No browser to be driven: {missing()}.")
    with import_module("playwright.sync_api").sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        try: yield chromium
        except Exception:
            for context in chromium.contexts: shot(context.pages[0], "failed")      # to be looked at
            raise
        finally: chromium.close()


# ---- what a visitor does
def opened(chromium, address, **viewport):
    "A page on which a post can be entered"
    page = chromium.new_page(viewport=viewport or dict(width=1100, height=900), locale="en-GB")
    page.goto(address)
    page.get_by_placeholder(BOX).wait_for(timeout=90_000)
    return page


def write(page, text):
    "Enter a text with the keyboard; the box takes no Enter before its files have arrived"
    box = page.get_by_placeholder(BOX)
    box.fill(text)
    for _ in range(300):
        box.press("Enter")
        page.wait_for_timeout(200)
        if not box.count(): return      # nobody answers: there is a sentence in its place
        if not box.input_value() and not page.get_by_test_id("stChatInputSubmitButton").is_enabled(): return
    raise FakesError(f"The box did not take {text!r}.")


def upload(page, *files, text=""):
    "Add files, of (name, kind, bytes), and send them"
    page.locator("input[type=file]").first.set_input_files(
        [dict(name=name, mimeType=kind, buffer=data) for name, kind, data in files])
    page.get_by_text(files[-1][0]).first.wait_for()
    write(page, text)


def shot(page, name): page.screenshot(path=SHOTS/f"{name}.png")


# ---- what is sent
def png(megabytes=0.0, seed=0) -> bytes:
    "A picture; of noise where it has to be large"
    draw = np.random.default_rng(seed)
    side = int((megabytes * 2**20 / 3)**0.5)
    pixels = draw.integers(0, 256, (side, side, 3), "uint8") if side else np.full((96, 128, 3), 140, "uint8")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def mp4() -> bytes:
    "Three seconds of a moving square, with a tone"
    frames = np.full((36, 96, 96, 3), 90, "uint8")
    for t in range(36): frames[t, 30:60, t:t + 30] = 220
    tone = (0.2 * np.sin(np.arange(48_000) / 8)).astype("float32")
    with TemporaryDirectory() as folder:
        write_clip(Path(folder)/"clip.mp4", frames, 12.0, tone)
        return (Path(folder)/"clip.mp4").read_bytes()


def wav() -> bytes:
    "Three seconds of a tone"
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes((8000 * np.sin(np.arange(48_000) / 8)).astype("<i2").tobytes())
    return file.getvalue()


FILES:dict[str, tuple[str, Callable[[], bytes]]] = {      # name → kind, content
    "picture.png": ("image/png", png),
    "clip.mp4": ("video/mp4", mp4),
    "sound.wav": ("audio/wav", wav),
}


# ---- parts: each takes a browser, returns an entry of bench/results.json
def entry(name, ours, unit, data, held=True, told=""):
    "A line of the table; `broken` where what must hold does not"
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    broken = [] if held else [f"page, {name}: {told or ours}"]
    figures = dict(ours=ours, peer=None, unit=unit, ratio=None)
    return dict(name=f"page, {name}", **figures, machine=machine, data=data, broken=broken)


def kinds(chromium):
    "A headline, a file of each kind, one that is refused"
    begun = time.monotonic()
    with started("app", "--models", str(MODELS)) as (_, address):
        page = opened(chromium, address)
        write(page, HEADLINE)
        page.get_by_text(SURE).first.wait_for(timeout=60_000)
        seconds = time.monotonic() - begun
        shot(page, "headline")
        for name, (kind, content) in FILES.items():
            upload(page, (name, kind, content()))
            page.get_by_text(name).first.wait_for()
            page.get_by_text("A detector can be wrong").wait_for(timeout=60_000)
            shot(page, name.partition(".")[0])
        upload(page, ("tool.exe", "application/octet-stream", b"MZ" + bytes(100)))
        page.get_by_text("in no format that is read here").wait_for(timeout=60_000)
        shot(page, "refused")
        return entry("a headline from the start of the command", round(seconds, 1), "s", "then each kind of file")


def phone(chromium):
    "390 pixels: nothing is wider than the window"
    with started("app", "--models", str(MODELS)) as (_, address):
        page = opened(chromium, address, **PHONE)
        shot(page, "phone_start")
        write(page, HEADLINE)
        page.get_by_text(SURE).first.wait_for(timeout=60_000)
        page.get_by_text("Why", exact=True).first.click()
        page.get_by_text("Where the evidence came from").first.wait_for()
        shot(page, "phone_why")
        width = page.evaluate("document.documentElement.scrollWidth")
        return entry("widest thing on a phone", width, "px", "a window of 390 px", width <= PHONE["width"])


def keys(chromium):
    "No mouse: the box, the answer's reasons and the language are reached by Tab, Enter and arrows"
    with started("app", "--models", str(MODELS)) as (_, address):
        page = opened(chromium, address)
        pressed = tab_to(page, lambda here: here == "TEXTAREA")
        page.keyboard.type(HEADLINE)
        page.keyboard.press("Enter")
        page.get_by_text(SURE).first.wait_for(timeout=60_000)
        pressed += tab_to(page, lambda here: here.startswith("SUMMARY") and here.endswith("Why"))
        page.keyboard.press("Enter")
        page.get_by_text("Where the evidence came from").first.wait_for()
        pressed += tab_to(page, lambda here: here == "INPUT 0")
        page.keyboard.press("ArrowRight")
        page.get_by_role("heading", name="Juger une publication").wait_for(timeout=30_000)
        shot(page, "keys_french")
        return entry("keys from the address to reasons and French", pressed, "Tab", "no mouse")


def tab_to(page, found, most=60) -> int:
    "Press Tab until what has the focus is found; how often"
    about = "(e => [e.tagName, {INPUT: e.value, SUMMARY: e.innerText}[e.tagName]].join(' '))(document.activeElement)"
    for n in range(most):
        here = page.evaluate(about).replace("\n", " ").strip()
        if found(here): return n
        page.keyboard.press("Tab")
    raise FakesError(f"Nothing of the kind was reached with {most} Tabs; the last was {here!r}.")


def gone(chromium):
    "The service behind the page ends, and comes back"
    port = free_port()
    with started("app", "--api", f"http://127.0.0.1:{port}") as (_, address):
        with started("serve", "--models", str(MODELS), port=port):
            page = opened(chromium, address)
            write(page, HEADLINE)
            page.get_by_text(SURE).first.wait_for(timeout=60_000)
        write(page, HEADLINE)
        page.get_by_text("does not answer").wait_for(timeout=30_000)
        page.get_by_text(HEADLINE).last.wait_for(timeout=30_000)      # what was entered is not lost
        shot(page, "gone")
        with started("serve", "--models", str(MODELS), port=port):
            begun = time.monotonic()
            page.get_by_role("button", name="Try again").click()
            page.get_by_placeholder(BOX).wait_for(timeout=60_000)
            write(page, HEADLINE)
            page.get_by_text(SURE).first.wait_for(timeout=60_000)
            return entry("from the service's return to an answer", round(time.monotonic() - begun, 1), "s",
                         "the detectors load meanwhile")


def visitors(chromium):
    "Fifty at once, each with a headline"
    with started("app", "--models", str(MODELS)) as (process, address):
        pages = [opened(chromium, address, width=500, height=500) for _ in range(VISITORS)]
        begun = time.monotonic()
        for n, page in enumerate(pages): write(page, f"{HEADLINE}, {n} times")
        for page in pages: page.get_by_text(SURE).first.wait_for(timeout=120_000)
        seconds = time.monotonic() - begun
        n_workers, held = len(psutil.Process(process.pid).children()), memory(process)
        for page in pages: page.close()
        return entry(f"{VISITORS} visitors until each has an answer", round(seconds, 1), "s",
                     f"{n_workers} processes judge for all, {held:.0f} MiB in the page's own", seconds < 120)


def memory(process) -> float: # MiB
    "What the page's own process holds"
    return psutil.Process(process.pid).memory_info().rss / 2**20


def uploads(chromium):
    "Two thousand files of a megabyte, half of them pictures, ten at a time"
    with started("app", "--models", str(MODELS)) as (process, address), TemporaryDirectory() as folder:
        files, looks = [a_megabyte(Path(folder), n) for n in range(AT_ONCE)], []
        page = opened(chromium, address)
        page.get_by_text("Choices and limits").click()
        page.get_by_text("Say why, which takes longer").click()
        for n in range(0, UPLOADS, AT_ONCE):
            if n % LOOK_EVERY == 0: looks.append(memory(process))
            page.locator("input[type=file]").first.set_input_files(files)
            page.get_by_test_id("stChatInput").get_by_text(Path(files[-1]).name).wait_for()
            write(page, f"After {n} files")                                       # a post of its own, and judged last
            page.locator("p.post", has_text=f"After {n} files").wait_for(timeout=120_000)
            page.wait_for_selector("[data-test-script-state=notRunning]", timeout=60_000)
        looks.append(memory(process))
        rise = looks[-1] - looks[1]
        told = f"{[round(look) for look in looks]} MiB, every {LOOK_EVERY} uploads"
        return entry(f"memory over {UPLOADS:,} uploads", round(rise, 1), "MiB", told, rise < GROWTH, told)


def a_megabyte(folder, n) -> str: # path
    "A picture, or bytes that are none"
    path = folder/f"file{n}.{'bin' if n % 2 else 'png'}"
    path.write_bytes(np.random.default_rng(n).bytes(2**20) if n % 2 else png(1.0, n))
    return str(path)


PARTS = {part.__name__: part for part in (kinds, phone, keys, gone, visitors, uploads)}


def run(parts=()):
    "Each part in a browser of its own"
    for name in parts or PARTS:
        if name not in PARTS: raise FakesError(f"No part {name!r} of this bench{nearest(name, PARTS)}")
        with browser() as chromium: yield PARTS[name](chromium)
