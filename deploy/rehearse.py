"""Build an image and run it without Docker, and say what happened.

    python deploy/rehearse.py deploy/Dockerfile.cpu --models models --scratch /var/tmp/rehearsal

The base image is a folder with Debian and its Python, made once with debootstrap; dockerfile.py follows the steps on
top of it. The service then runs as the image says, by ENTRYPOINT and CMD: as its user, without more rights, on a root
file system that it cannot write, without a network, and with the settings, models and keys where compose.yaml puts
them. It must become alive and ready, judge the golden sample of every detector, and end in time when it is told to
stop. The image that trains makes a project and trains in it; MLflow's server keeps a version and names it. Linux and
root; nothing is left running or mounted: all happens in namespaces of its own, which end with it.
"""
import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from dockerfile import Builder, Image, StepError, mount, start

HERE = Path(__file__).resolve().parent
INSIDE = "MMFAKES_REHEARSAL"           # set where the namespaces are made already
PACKAGES = "ca-certificates,netbase,python3.11,python3.11-dev,python3.11-venv,python3-pip"
MIRROR = "http://deb.debian.org/debian"
CONF, KEYS = "/etc/mmfakes/serve.yaml", "/run/secrets/mmfakes_keys"
READY_SECONDS = 150
NEW_NETWORK = 0x40000000               # CLONE_NEWNET

def make_base(folder):
    "Debian's slim base with Python where the official image has it, 370 MB"
    tool = shutil.which("debootstrap")
    if not tool:
        raise StepError(f"No base at {folder}; debootstrap makes one and is not here: `apt-get install debootstrap`.")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    subprocess.run([tool, "--variant=minbase", f"--include={PACKAGES}", "bookworm", partial, MIRROR], check=True)
    (partial/"usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()
    for name, target in {"python": "/usr/bin/python3.11", "python3": "python", "pip": "/usr/bin/pip3"}.items():
        (partial/"usr/local/bin"/name).symlink_to(target)
    partial.rename(folder)

@dataclass
class Run:
    "A service on trial"
    image:Image
    process:subprocess.Popen|None = None
    key:str = ""
    began:float = 0.0
    figures:dict = field(default_factory=dict)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.image.port}"

    def seconds(self):
        "Since the start"
        return round(time.perf_counter() - self.began, 1)

    def check_alive(self):
        "Raises StepError with its log once it has ended"
        if self.process.poll() is not None:
            log = (self.image.home/"service.log").read_text(errors="replace")
            raise StepError(f"The service ended with {self.process.returncode}:\n{log[-3000:]}")

def python_inside(
    image,
    code,
) -> str: # what it printed
    "Run a few lines with the image's own Python"
    process = start(image, ["python", "-c", code], stdout=subprocess.PIPE)
    out, _ = process.communicate(timeout=120)
    if process.returncode:
        raise StepError(f"{code!r} failed in the image")
    return out.decode()

def compose_service(name="serve") -> dict:
    "A service as compose.yaml runs it"
    return yaml.safe_load((HERE/"compose.yaml").read_text())["services"][name]

def set_value(conf, setting):
    "engine.device=cpu, into settings"
    path, _, value = setting.partition("=")
    section, name = path.split(".")
    conf.setdefault(section, {})[name] = yaml.safe_load(value)

def furnish(
    run,
    models,     # folder
    settings,   # section.name=value, over those of the image
):
    "Models, keys, settings and scratch, where compose.yaml puts them; then nothing else can be written"
    image = run.image
    key, line = json.loads(python_inside(image, MAKE_KEY).splitlines()[-1])
    run.key = key
    conf = yaml.safe_load(image.inside(CONF).read_text())
    for setting in settings:
        set_value(conf, setting)
    given = {CONF: yaml.safe_dump(conf), KEYS: line + "\n"}
    for path, text in given.items():
        image.inside(path).parent.mkdir(parents=True, exist_ok=True)
        image.inside(path).write_text(text)
    mount("--bind", models, image.inside("/models"))
    mount("-o", "remount,bind,ro", image.inside("/models"))
    seal(image, "serve", "/data")

def seal(
    image,
    service,   # of compose.yaml
    folder,    # its user's own
):
    "Scratch as compose.yaml has it, and a folder of the user's; nothing else can be written from now on"
    for place in compose_service(service)["tmpfs"]:
        path, _, options = place.partition(":")
        mount("-t", "tmpfs", "-o", options, "tmpfs", image.inside(path))
    mount("-t", "tmpfs", "-o", f"uid={image.user[0]},gid={image.user[1]}", "tmpfs", image.inside(folder))
    mount("-o", "remount,ro", image.root)

MAKE_KEY = ("import json\n"
            "from multimodal_fakes.service.access import make_key\n"
            "print(json.dumps(make_key('rehearsal', ('predict', 'metrics'))))")

def no_network():
    "Leave the machine's network for one with nothing but 127.0.0.1"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_NETWORK):
        raise StepError(f"No network of its own: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

def launch(run):
    "Start the service as the image says"
    run.began = time.perf_counter()
    with (run.image.home/"service.log").open("wb") as log:
        argv = run.image.entrypoint + run.image.cmd
        run.process = start(run.image, argv, stdout=log, stderr=log, start_new_session=True)

def is_healthy(run) -> bool:
    "Ask as Docker would, with the HEALTHCHECK's own command"
    process = start(run.image, run.image.health["cmd"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return process.wait(float(run.image.health["timeout"].rstrip("s")) + 1) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False

def ask(
    run,
    path,
    body=None,     # bytes of a form
    boundary="",   # of it
) -> tuple: # status, JSON
    "One request"
    request = urllib.request.Request(run.url + path, data=body)
    request.add_header("Authorization", f"Bearer {run.key}")
    if boundary:
        request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as e:
        return e.code, json.load(e)
    except OSError as e:
        return 0, str(e)

def wait_until(run, name, is_so):
    "Note how many seconds it takes; raises StepError with the log after READY_SECONDS"
    while not is_so():
        run.check_alive()
        if run.seconds() > READY_SECONDS:
            log = (run.image.home/"service.log").read_text(errors="replace")
            said = ask(run, "/health/ready") if name == "ready" else ""
            raise StepError(f"Not {name} after {READY_SECONDS} s: {said}\n{log[-3000:]}")
        time.sleep(0.1)
    run.figures[f"{name} after s"] = run.seconds()

def form_of(
    post,     # field → text or file name
    folder,   # of the files
) -> tuple: # body, boundary
    "A post as a browser sends it"
    boundary, parts = uuid.uuid4().hex, []
    for name, value in post.items():
        file = f'; filename="{value}"' if name != "text" else ""
        content = (folder/value).read_bytes() if file else value.encode()
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), boundary

def judge_golden(run, folder, runtime):
    "Send a detector's golden sample; raises StepError where the answer is not the known one"
    golden = json.loads((folder/"golden/golden.json").read_text())
    status, answer = ask(run, f"/predict/{folder.name}", *form_of(golden["post"], folder/"golden"))
    if status != 200:
        raise StepError(f"{folder.name}: {status} {answer}")
    known = golden["probabilities"][runtime]
    gap = max(abs(answer["probabilities"][c] - p) for c, p in known.items())
    print(f"  {folder.name}: {', '.join(golden['post'])} → {answer['probabilities']}, {gap:.6f} from the known answer")
    if gap > golden["tolerance"]:
        raise StepError(f"{folder.name}: {answer['probabilities']}, known is {known}")

def memory_mb(process) -> float:
    "Proportional share of memory of a process and its descendants, in MB"
    pids, total = [process.pid], 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            pids += map(int, (task/"children").read_text().split())
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return round(total / 1024)

def stop(run, grace):
    "Tell it to stop as Docker would; raises StepError if it does not"
    began = time.perf_counter()
    run.process.send_signal(getattr(signal, run.image.stopsignal))
    try:
        code = run.process.wait(grace)
    except subprocess.TimeoutExpired:
        raise StepError(f"Still there {grace:.0f} s after {run.image.stopsignal}: Docker would kill it.") from None
    run.figures["stopped after s"] = round(time.perf_counter() - began, 1)
    if code:
        raise StepError(f"It ended with {code} after {run.image.stopsignal}.")

def try_service(image, models, settings, grace) -> dict: # figures
    "From the entry point to the end"
    run = Run(image)
    furnish(run, models, settings)
    no_network()
    launch(run)
    try:
        wait_until(run, "alive", lambda: is_healthy(run))
        wait_until(run, "ready", lambda: ask(run, "/health/ready")[0] == 200)
        _, about = ask(run, "/models")
        for model in about["models"]:
            judge_golden(run, models/model["task"], model["runtime"])
        run.figures["memory MB"] = memory_mb(run.process)
        stop(run, grace)
    finally:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)
            run.process.wait()
    return run.figures

def try_training(image) -> dict: # figures
    "A project made, trained for an epoch, asked and reported on, all inside"
    seal(image, "train", "/project")
    no_network()
    figures = {}
    for command in TRAINING:
        began = time.perf_counter()
        process = start(image, ["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said, _ = process.communicate(timeout=TRAINING_SECONDS)
        if process.returncode:
            raise StepError(f"{command} ended with {process.returncode}:\n{said[-3000:]}")
        figures[f"{command}, s"] = round(time.perf_counter() - began)
        print("  " + command, *said.strip().splitlines()[-3:], sep="\n    ")
    return figures

TRAINING_SECONDS = 1800      # that one of the commands may take
TRAINING = (
    "mmfakes init demo",
    "cd demo && mmfakes run --debug",
    "cd demo && mmfakes predict --models runs/debug/models --text 'A headline'",
    "cd demo/runs/debug && dvc status",
)

def try_tracking(image) -> dict: # figures
    "MLflow's server from its entry point to its end, with a version that is kept and named in between"
    seal(image, "mlflow", image.workdir)
    no_network()
    run = Run(image)
    launch(run)
    try:
        wait_until(run, "alive", lambda: is_healthy(run))
        print("  kept and named:", python_inside(image, KEEP_VERSION).strip())
        run.figures["memory MB"] = memory_mb(run.process)
        stop(run, float(compose_service("mlflow")["stop_grace_period"].rstrip("s")))
    finally:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)
            run.process.wait()
    return run.figures

KEEP_VERSION = """
from mlflow import MlflowClient
client = MlflowClient("http://127.0.0.1:5000")
run = client.create_run(client.create_experiment("rehearsal"))
client.log_text(run.info.run_id, "a bundle", "bundle.txt")
client.create_registered_model("fake_news")
version = client.create_model_version("fake_news", run.info.artifact_uri, run.info.run_id)
client.set_registered_model_alias("fake_news", "champion", version.version)
named = client.get_model_version_by_alias("fake_news", "champion")
print(f"fake_news@{named.version}, {[file.path for file in client.list_artifacts(named.run_id)]}")
"""

def size_mb(folder) -> float:
    "On disk, each file once"
    return int(subprocess.run(["du", "-sm", folder], capture_output=True, text=True, check=True).stdout.split()[0])

def sizes(image) -> dict: # figures
    "MB that the image adds to its base"
    return {"over the base MB": size_mb(image.home/"upper")}

def in_namespaces():
    "This script again, with mounts and processes of its own"
    if os.geteuid():
        raise StepError("Root is needed, for chroot and mounts.")
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
               sys.executable, *sys.argv]
    return subprocess.run(command, env=os.environ | {INSIDE: "1"}).returncode

def asked() -> argparse.Namespace:
    "The command line"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dockerfile")
    parser.add_argument("--models", type=Path, help="folder of detectors; without it a service is built and not run")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for base and stages, on a disk (overlayfs)")
    parser.add_argument("--base", type=Path, help="file system of the base image; made in --scratch if left out")
    parser.add_argument("--sources", type=Path, help="folder with files that ADD would fetch, by checksum")
    parser.add_argument("--cache", type=Path, help="uv's cache, lent to the build")
    parser.add_argument("--set", nargs="*", default=[], metavar="SECTION.NAME=VALUE", help="settings over the image's")
    return parser.parse_args()

TRIALS = {"Dockerfile.train": try_training, "Dockerfile.mlflow": try_tracking}     # others are of the service

def rehearse(args):
    "Build, run, report"
    args.scratch.mkdir(parents=True, exist_ok=True)
    base = args.base or args.scratch/"base"
    if not base.exists():
        make_base(base)
    builder = Builder(HERE.parent, base, args.scratch, args.sources, args.cache)
    image = builder.follow(args.dockerfile)
    figures = sizes(image)
    if args.set:
        builder.depart(f"settings over those of the image: {', '.join(args.set)}")
    name = Path(args.dockerfile).name
    if name in TRIALS:
        figures |= TRIALS[name](image)
    elif args.models:
        grace = float(compose_service()["stop_grace_period"].rstrip("s"))
        figures |= try_service(image, args.models.resolve(), args.set, grace)
    print(json.dumps({"image": name, **figures}))
    print("Not as Docker would:", *builder.departures, sep="\n  ")

if __name__ == "__main__":
    try:
        if INSIDE not in os.environ:
            sys.exit(in_namespaces())
        rehearse(asked())
    except StepError as e:
        sys.exit(f"Error: {e}")
