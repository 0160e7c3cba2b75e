"What no linter sees: that the files in this folder agree with each other, with requirements.lock and with the service; run by `make deploy-lint`"
import re
import sys
from pathlib import Path

import yaml

from multimodal_fakes.service.respond import read_conf

HERE = Path(__file__).parent
HEAVY = re.compile(r"(torch|transformers|timm|nvidia|cuda|triton|dvc|jupyter)")
UID, BASE_MB, WORKER_MB = 10001, 90, 250        # measured with the pilot's five detectors, see README.md

def versions(
    lock,   # file
) -> dict: # name → set of versions, more than one where they depend on Python's
    "What a lock holds"
    found = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", Path(lock).read_text(), re.M): found.setdefault(name, set()).add(version)
    return found

def wrong_locks():
    "Versions other than those that the tests ran with, and packages that have no place in the image"
    full = versions(HERE.parent/"requirements.lock")
    for lock in sorted(HERE.glob("*.lock")):
        for name, found in versions(lock).items():
            if name in full and not found <= full[name]: yield f"{lock.name}: {name} {', '.join(found)}, requirements.lock has {', '.join(full[name])}; run `make deploy-lock`"
            if HEAVY.match(name): yield f"{lock.name}: {name} has no place in this image"
        if not versions(lock): yield f"{lock.name} is empty"

def mb(text) -> float: # of 2²⁰ bytes
    "Memory as compose and Kubernetes write it"
    number, unit = re.fullmatch(r"([\d.]+)([A-Za-z]+)", text).groups()
    return float(number) * {"m": 1, "Mi": 1, "g": 1024, "Gi": 1024}[unit]

def wrong_sizes():
    "Memory, cores, ports and paths that do not fit the settings"
    conf, compose = read_conf(HERE/"k8s/serve.yaml"), yaml.safe_load((HERE/"compose.yaml").read_text())["services"]["serve"]
    pod = yaml.safe_load((HERE/"k8s/deployment.yaml").read_text())["spec"]["template"]["spec"]
    box = pod["containers"][0]
    most = BASE_MB + 2 * conf.limits.held_mb + conf.engine.n_workers * (WORKER_MB + conf.engine.memory_mb)      # an upload is held once as it came and once on its way to a worker
    stop = conf.http.notice_seconds + conf.http.drain_seconds
    for where, memory, cores, grace, port, user in (
        ("compose.yaml", compose["mem_limit"], compose["cpus"], float(compose["stop_grace_period"].rstrip("s")), int(compose["ports"][0].split(":")[-1]), int(compose["user"].split(":")[0])),
        ("k8s/deployment.yaml", box["resources"]["limits"]["memory"], float(box["resources"]["limits"]["cpu"]), pod["terminationGracePeriodSeconds"], box["ports"][0]["containerPort"], pod["securityContext"]["runAsUser"])):
        if mb(memory) < most: yield f"{where}: the container may take {mb(memory):.0f} MB, the settings up to {most:.0f}"
        if cores < conf.engine.n_workers: yield f"{where}: {cores} cores for {conf.engine.n_workers} workers"
        if grace <= stop: yield f"{where}: killed after {grace:.0f} s, the service may take {stop:.0f} s to finish"
        if port != conf.http.port: yield f"{where}: port {port}, the settings say {conf.http.port}"
        if user != UID: yield f"{where}: user {user}, the images are made for {UID}"
    for image in ("cpu", "cuda"):
        text = (HERE/f"Dockerfile.{image}").read_text()
        for needed in (f"USER {UID}:{UID}", f"EXPOSE {conf.http.port}", f"127.0.0.1:{conf.http.port}/health/live", "/etc/mmfakes/serve.yaml"):
            if needed not in text: yield f"Dockerfile.{image} lacks {needed!r}"

if __name__ == "__main__":
    wrong = [*wrong_locks(), *wrong_sizes()]
    if wrong: sys.exit("\n".join(wrong))
    print("deploy: locks, settings, images and manifests agree")
