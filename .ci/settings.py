"""That every file of settings can be used: params.yaml, each profile, dataset and encoder, conf/serve.yaml.

Run by `make check-settings`, as a part of `make check`."""
import sys
from functools import partial
from pathlib import Path

from multimodal_fakes.core import FakesError, read_yaml
from multimodal_fakes.experts.confs import load_encoder_conf
from multimodal_fakes.line import check_sections
from multimodal_fakes.record import load_dataset_conf
from multimodal_fakes.service.respond import read_conf
from multimodal_fakes.workspace import profile_settings

ROOT = Path(__file__).resolve().parent.parent

def check_profile(name):
    "Its settings, laid over those of the project; those of a table of one's own are concluded from the table"
    settings = profile_settings(name, ROOT)
    if "data" not in settings:
        check_sections(settings)

def checks():
    "(file, what reads it)"
    yield "params.yaml", lambda: check_sections(read_yaml(ROOT/"params.yaml"))
    yield "conf/serve.yaml", partial(read_conf, ROOT/"conf/serve.yaml")
    for kind, read in (("profile", check_profile), ("dataset", load_dataset_conf), ("encoder", load_encoder_conf)):
        for path in sorted((ROOT/"conf"/kind).glob("*.yaml")):
            yield f"conf/{kind}/{path.name}", partial(read, path.stem)

def wrong(name, check):
    "What is against a file"
    try:
        check()
    except FakesError as e:
        yield f"{name}: {e}"

def main():
    "Say what is wrong"
    asked = list(checks())
    said = [line for name, check in asked for line in wrong(name, check)]
    print("\n".join(said) or f"{len(asked)} files of settings can be used")
    sys.exit(bool(said))

if __name__ == "__main__":
    main()
