"""What no linter sees: that the files in this folder agree with each other, with requirements.lock and the service.

Run by `make deploy-lint`."""
import contextlib
import io
import json
import re
import shlex
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import kubernetes_validate
import yaml
from licences import wrong_licences
from monitoring import exported, wrong_alerts, wrong_dashboard

from multimodal_fakes.cli import VERBS, make_parser
from multimodal_fakes.core import FakesError
from multimodal_fakes.service.respond import read_conf

HERE = Path(__file__).parent
TRAINING = "dvc|grandalf|pygit2|jupyter|ipykernel|papermill|datasketch|optuna|webdataset|torchaudio|pandas|pyarrow"
UNWANTED = {      # image → names that have no place in it; PyAV is built from its source, its wheel is GPL
    "cpu": re.compile(rf"(torch|transformers|timm|nvidia|cuda|triton|av$|{TRAINING})"),
    "cuda": re.compile(rf"(onnxruntime-gpu|av$|{TRAINING})"),
}
APART = {("requirements-mlflow.lock", "pyarrow")}      # a server of its own takes no later one
PINNED = re.compile(r"^([a-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", re.M)
UID = 10001
BASE_MB = 150                               # of the process that listens, and the one that starts workers
WORKER_MB = {"onnx": 250, "torch": 1500}    # of a worker with the pilot's five detectors, see README.md

def versions(
    lock,   # file
) -> dict: # name → set of versions, more than one where they depend on Python's
    "What a lock holds"
    pinned = {}
    for name, version in PINNED.findall(Path(lock).read_text()):
        pinned.setdefault(name, set()).add(version)
    return pinned

def image_locks() -> dict: # image → what is installed in it
    "The locks of the images that others may be given; those that serve hold PyAV, built from its source"
    av = versions(HERE/"requirements-av.lock")
    serving = {image: versions(HERE/f"requirements-{image}.lock") | av for image in UNWANTED}
    return serving | {"mlflow": versions(HERE/"requirements-mlflow.lock")}

def wrong_locks():
    "Versions other than those that the tests ran with, and packages that have no place in an image"
    full = versions(HERE.parent/"requirements.lock")
    for lock in sorted(HERE.glob("*.lock")):
        pinned = versions(lock)
        for name, here in pinned.items():
            if name in full and not here <= full[name] and (lock.name, name) not in APART:
                yield (f"{lock.name}: {name} {', '.join(here)}, requirements.lock has {', '.join(full[name])}; "
                       "run `make deploy-lock`")
            unwanted = UNWANTED.get(lock.stem.removeprefix("requirements-"))
            if unwanted and unwanted.match(name):
                yield f"{lock.name}: {name} has no place in this image"
        if not pinned:
            yield f"{lock.name} is empty"

def mb(text) -> float: # of 2²⁰ bytes
    "Memory as compose and Kubernetes write it"
    number, unit = re.fullmatch(r"([\d.]+)([A-Za-z]+)", text).groups()
    return float(number) * {"m": 1, "Mi": 1, "g": 1024, "Gi": 1024}[unit]

@dataclass
class Container:
    "What a manifest grants the service"
    where:str       # file
    memory:float    # MB
    cores:float
    grace:float     # seconds between the request to stop and the end
    port:int
    user:int

def wrong_copies():
    "Several copies without a database that they share, or one copy with an autoscaler"
    alone = yaml.safe_load((HERE/"k8s/base/deployment.yaml").read_text())["spec"]
    if alone.get("replicas") != 1:
        yield "k8s/base/deployment.yaml: more than one copy needs PostgreSQL, see k8s/copies"
    for folder in ("k8s", "k8s/base", "k8s/gpu"):
        if "autoscaler.yaml" in (HERE/folder/"kustomization.yaml").read_text():
            yield f"{folder}/kustomization.yaml: an autoscaler needs PostgreSQL, see k8s/copies"
    volumes = {volume["name"]: volume for volume in pod_of("k8s/copies/deployment.yaml")["volumes"]}
    if "secret" not in volumes["conf"]:
        yield "k8s/copies/deployment.yaml: the settings name the database with its password, so they lie in a secret"

def wrong_retraining():
    "A schedule that could run twice at once, promote by itself, or do what the service may not"
    where, cron = "k8s/retrain/cronjob.yaml", yaml.safe_load((HERE/"k8s/retrain/cronjob.yaml").read_text())["spec"]
    pod, serve = cron["jobTemplate"]["spec"]["template"]["spec"], pod_of("k8s/base/deployment.yaml")
    if cron["concurrencyPolicy"] != "Forbid":
        yield f"{where}: two retrainings at once would write one project"
    for name in ("securityContext", "automountServiceAccountToken", "enableServiceLinks"):
        if pod[name] != serve[name]:
            yield f"{where}: {name} is not that of k8s/base/deployment.yaml"
    for box in (*pod["initContainers"], *pod["containers"]):
        if box["securityContext"] != serve["containers"][0]["securityContext"]:
            yield f"{where}: the securityContext of {box['name']} is not that of k8s/base/deployment.yaml"
        yield from wrong_command(where, box["args"])
    listed = set(yaml.safe_load((HERE/"k8s/retrain/kustomization.yaml").read_text())["resources"])
    there = {path.name for path in (HERE/"k8s/retrain").glob("*.yaml")} - {"kustomization.yaml"}
    if listed != there:
        yield f"k8s/retrain/kustomization.yaml: lists {', '.join(sorted(listed ^ there))} differently from the folder"

def wrong_command(where, args):
    "A command that `mmfakes` does not understand, or that promotes"
    if args[0] != "mmfakes" or args[1] not in VERBS:
        yield f"{where}: {' '.join(args[:2])} is no verb of mmfakes"
        return
    try:
        with contextlib.redirect_stderr(io.StringIO()) as said:
            asked = make_parser().parse_args(args[1:])
    except SystemExit:
        yield f"{where}: {' '.join(args)}: {said.getvalue().strip().splitlines()[-1]}"
        return
    if getattr(asked, "promote", False):
        yield f"{where}: a schedule promotes nothing: leave --promote out"

def compose_services():
    "What compose.yaml runs"
    return yaml.safe_load((HERE/"compose.yaml").read_text())["services"]

def compose_container(name):
    "A service of compose.yaml"
    serve = compose_services()[name]
    return Container(
        where=f"compose.yaml, {name}",
        memory=mb(serve["mem_limit"]),
        cores=serve["cpus"],
        grace=float(serve["stop_grace_period"].rstrip("s")),
        port=int(serve["ports"][0].split(":")[-1]),
        user=int(serve["user"].split(":")[0]),
    )

def pod_of(path):
    "What a deployment makes pods of"
    return yaml.safe_load((HERE/path).read_text())["spec"]["template"]["spec"]

def kubernetes_container(patch=""):
    "The first container of k8s/base/deployment.yaml, with the resources of a patch"
    pod = pod_of("k8s/base/deployment.yaml")
    container = pod["containers"][0]
    limits = (pod_of(patch)["containers"][0] if patch else container)["resources"]["limits"]
    return Container(
        where=patch or "k8s/base/deployment.yaml",
        memory=mb(limits["memory"]),
        cores=float(limits["cpu"]),
        grace=pod["terminationGracePeriodSeconds"],
        port=container["ports"][0]["containerPort"],
        user=pod["securityContext"]["runAsUser"],
    )

def most_memory(conf):
    "MB that the settings allow; an upload is held once as it came and once on its way to a worker"
    n_workers = conf.engine.n_workers + conf.engine.spare_workers + conf.engine.long_workers
    workers = n_workers * (WORKER_MB[conf.engine.runtime] + conf.engine.memory_mb)
    return BASE_MB + 2 * conf.limits.held_mb + workers

def wrong_container(box, conf):
    "Where a manifest does not fit the settings"
    most = most_memory(conf)
    stop = conf.http.notice_seconds + conf.http.drain_seconds
    n_workers = conf.engine.n_workers
    if box.memory < most:
        yield f"{box.where}: the container may take {box.memory:.0f} MB, the settings up to {most:.0f}"
    if box.cores < n_workers:
        yield f"{box.where}: {box.cores} cores for {n_workers} workers"
    if box.grace <= stop:
        yield f"{box.where}: killed after {box.grace:.0f} s, the service may take {stop:.0f} s to finish"
    if box.port != conf.http.port:
        yield f"{box.where}: port {box.port}, the settings say {conf.http.port}"
    if box.user != UID:
        yield f"{box.where}: user {box.user}, the images are made for {UID}"

def wrong_image(image, conf, settings):
    "Lines that a Dockerfile lacks"
    text = (HERE/f"Dockerfile.{image}").read_text()
    port = conf.http.port
    lines = (
        f"USER {UID}:{UID}",
        f"EXPOSE {port}",
        f"127.0.0.1:{port}/health/live",
        f"COPY deploy/{settings} /etc/mmfakes/serve.yaml",
    )
    for line in lines:
        if line not in text:
            yield f"Dockerfile.{image} lacks {line!r}"

def video_stage(image):
    "The part of a Dockerfile that builds FFmpeg and PyAV"
    text = (HERE/f"Dockerfile.{image}").read_text()
    return text[text.index(" AS av\n"):text.index(" AS build\n")]

def wrong_sizes():
    "Memory, cores, ports and paths that do not fit the settings"
    conf = read_conf(HERE/"k8s/serve.yaml")
    yield from wrong_container(compose_container("serve"), conf)
    yield from wrong_container(compose_container("serve-registry"), conf)
    yield from wrong_container(kubernetes_container(), conf)
    yield from wrong_image("cpu", conf, "k8s/serve.yaml")
    conf = read_conf(HERE/"k8s/gpu/serve.yaml")
    yield from wrong_container(compose_container("serve-gpu"), conf)
    yield from wrong_container(kubernetes_container("k8s/gpu/deployment.yaml"), conf)
    yield from wrong_image("cuda", conf, "k8s/gpu/serve.yaml")
    if video_stage("cpu") != video_stage("cuda"):
        yield "Dockerfile.cpu and Dockerfile.cuda build FFmpeg and PyAV in two ways"

TRAINED, TRACKED = "train", "mlflow"      # images that do not serve

def wrong_compose():
    "Commands that `mmfakes` does not understand, and an MLflow whose port or place is not that of its image"
    services = compose_services()
    for name, service in services.items():
        for said in ("entrypoint", "command"):
            args = service.get(said) or []
            if args[:1] == ["mmfakes"]:
                yield from wrong_command(f"compose.yaml, {name}, {said}", args)
    text = (HERE/f"Dockerfile.{TRACKED}").read_text()
    port = services[TRACKED]["ports"][0].split(":")[-1]
    asked = services["serve-registry"]["environment"]["MLFLOW_TRACKING_URI"]
    if f"EXPOSE {port}\n" not in text or f":{port}/health" not in text or not asked.endswith(f"{TRACKED}:{port}"):
        yield f"compose.yaml: {TRACKED} at port {port}, Dockerfile.{TRACKED} or MLFLOW_TRACKING_URI at another"
    if f"{TRACKED}:*" not in services[TRACKED]["command"][-1]:
        yield f"compose.yaml: MLflow refuses whoever calls it {TRACKED}, see --allowed-hosts"
    folder = services["train"]["volumes"][0].split(":")[1]
    if f"WORKDIR {folder}\n" not in (HERE/f"Dockerfile.{TRAINED}").read_text():
        yield f"compose.yaml: the project lies in {folder}, Dockerfile.{TRAINED} works elsewhere"

def wrong_users():
    "Images that end as another user than the manifests name, root above all"
    for path in sorted(HERE.glob("Dockerfile.*")):
        users = re.findall(r"^USER (.+)$", path.read_text(), re.M)
        if users[-1:] != [f"{UID}:{UID}"]:
            yield f"{path.name}: ends as {', '.join(users) or 'root'}, the manifests are made for {UID}"

def wrong_environment():
    "Variables that nothing reads"
    library = "".join(path.read_text() for path in (HERE.parent/"multimodal_fakes").rglob("*.py"))
    for path in sorted((*HERE.rglob("*.yaml"), *HERE.glob("Dockerfile.*"))):
        text = path.read_text()
        for name in sorted(set(re.findall(r"\bMMFAKES_[A-Z_]+\b", text))):
            if f'"{name}"' not in library and f"$({name})" not in text:      # which Kubernetes puts into a command
                yield f"{path.relative_to(HERE)}: nothing reads {name}"

CLOUD_SECONDS = 10.0      # that Cloud Run leaves between SIGTERM and the end
OF_CLOUD_RUN = ("containerConcurrency", "timeoutSeconds")      # of its template, beside what a pod has

def cloud_container():
    "The service on Cloud Run, where the image says the user, and its pod as Kubernetes knows one"
    template = yaml.safe_load((HERE/"clouds/run.yaml").read_text())["spec"]["template"]
    spec = {key: value for key, value in template["spec"].items() if key not in OF_CLOUD_RUN}
    box = spec["containers"][0]
    limits = box["resources"]["limits"]
    container = Container(
        where="clouds/run.yaml",
        memory=mb(limits["memory"]),
        cores=float(limits["cpu"]),
        grace=CLOUD_SECONDS,
        port=box["ports"][0]["containerPort"],
        user=UID,
    )
    return container, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "serve"}, "spec": spec}, template

def wrong_cloud_run():
    "Cloud Run's service: fields, sizes, places, and more copies than have a database"
    conf, (box, pod, template) = read_conf(HERE/"clouds/serve.yaml"), cloud_container()
    yield from wrong_container(box, conf)
    try:
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as e:
        yield f"{box.where}: {str(e).splitlines()[0]}"
    if int(template["metadata"]["annotations"]["autoscaling.knative.dev/maxScale"]) > 1 and not conf.history.url:
        yield f"{box.where}: more than one instance needs PostgreSQL, see k8s/copies"
    if template["spec"]["containerConcurrency"] > conf.engine.max_queue:
        yield f"{box.where}: more requests at once than engine.max_queue of clouds/serve.yaml"
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    secrets = [volume for volume in pod["spec"]["volumes"] if "secret" in volume]
    keys = {volume["name"]: volume["secret"]["items"][0]["path"] for volume in secrets}
    places = conf.engine.models, conf.access.keys, pod["spec"]["containers"][0]["args"][1]
    if places != (mounts["models"], f"{mounts['keys']}/{keys['keys']}", f"{mounts['conf']}/{keys['conf']}"):
        yield f"{box.where}: models, keys and settings are mounted elsewhere than {', '.join(places)}"

def wrong_vertex():
    "Lines of the job that `mmfakes` does not understand, no such profile, results that Cloud Run does not serve"
    where, job = "clouds/vertex.yaml", yaml.safe_load((HERE/"clouds/vertex.yaml").read_text())
    script = job["workerPoolSpecs"][0]["containerSpec"]["args"][0]
    for line in script.splitlines():
        args = shlex.split(line)
        if args[0] != "mmfakes":
            continue
        yield from wrong_command(where, args)
        profile = args[args.index("--profile") + 1] if "--profile" in args else None
        if profile and not (HERE.parent/f"conf/profile/{profile}.yaml").exists():
            yield f"{where}: no profile {profile}"
    served = cloud_container()[1]["spec"]["volumes"][0]["csi"]["volumeAttributes"]
    if f"/gcs/$BUCKET/{served['mountOptions'].removeprefix('only-dir=')}/" not in script:
        yield f"{where}: writes detectors elsewhere than clouds/run.yaml reads them"

def wrong_minikube():
    "A volume for another claim than the service's"
    volume = yaml.safe_load((HERE/"minikube/volume.yaml").read_text())["spec"]
    claim = yaml.safe_load((HERE/"k8s/base/storage.yaml").read_text())
    space = yaml.safe_load((HERE/"k8s/base/namespace.yaml").read_text())["metadata"]["name"]
    if volume["claimRef"] != {"namespace": space, "name": claim["metadata"]["name"]}:
        yield "minikube/volume.yaml: is kept for another claim than k8s/base/storage.yaml"
    if volume["accessModes"] != claim["spec"]["accessModes"]:
        yield "minikube/volume.yaml: accessModes are not those of k8s/base/storage.yaml"

def wrong_builds():
    "Images that workflow and folder do not both have, and Pythons that the project does not take"
    made = {path.name.removeprefix("Dockerfile.") for path in HERE.glob("Dockerfile.*")}
    flows = HERE.parent/".github/workflows"
    images = yaml.safe_load((flows/"images.yml").read_text())["jobs"]["image"]["strategy"]["matrix"]["image"]
    if set(images) != made:
        yield f"images.yml builds {', '.join(images)}, here are {', '.join(sorted(made))}"
    chosen = yaml.safe_load((HERE/"clouds/cloudbuild.yaml").read_text())["substitutions"]["_IMAGE"]
    if chosen not in made:
        yield f"clouds/cloudbuild.yaml: no Dockerfile.{chosen}"
    dev = json.loads((HERE.parent/".devcontainer/devcontainer.json").read_text())
    lowest = tomllib.loads((HERE.parent/"pyproject.toml").read_text())["project"]["requires-python"]
    python = re.search(r"(3\.\d+)", lowest)[1]
    for where, said in (("devcontainer.json", dev["image"]), ("ci.yml", (flows/"ci.yml").read_text())):
        if python not in said:
            yield f"{where}: another Python than {python}, the lowest that the project takes"
    if read_conf(HERE/"k8s/serve.yaml").http.port not in dev["forwardPorts"]:
        yield "devcontainer.json: the port of the service is not forwarded"

if __name__ == "__main__":
    try:
        known = exported()
        problems = [
            *wrong_locks(),
            *wrong_licences(image_locks()),
            *wrong_sizes(),
            *wrong_copies(),
            *wrong_alerts(known),
            *wrong_dashboard(known),
            *wrong_retraining(),
            *wrong_compose(),
            *wrong_users(),
            *wrong_environment(),
            *wrong_cloud_run(),
            *wrong_vertex(),
            *wrong_minikube(),
            *wrong_builds(),
        ]
    except FakesError as e:
        sys.exit(str(e))
    if problems:
        sys.exit("\n".join(problems))
    print("deploy: locks, licences, settings, images, manifests, clouds, workflows, alerts and dashboard agree")
