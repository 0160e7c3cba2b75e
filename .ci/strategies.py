"""A detector for each way to fuse, from the experts of a finished run: what .ci/matrix.py asks beside the pilot's.

    python .ci/strategies.py PROJECT FOLDER [--task fake_news] [--only boosted gated]
"""
import argparse
import shutil
from pathlib import Path

from multimodal_fakes.core import FakesError, read_yaml
from multimodal_fakes.detect.export import export_all
from multimodal_fakes.experts.expert import load_task
from multimodal_fakes.fuse.combine import NETWORKS, STRATEGIES
from multimodal_fakes.fuse.fusion import fuse
from multimodal_fakes.line import experts_of
from multimodal_fakes.trust.calibrate import calibrate_all

EVERY = list(dict.fromkeys([*STRATEGIES, *NETWORKS]))
SHORT = dict(epochs=2, tune_epochs=1)      # answers are held against the detector's own, so none need be good


def with_experts(project, work, task):
    "A folder with the results of a run up to the experts of one task"
    work.mkdir(parents=True)
    for name in ("Step_1", "Step_2", "Step_3", "Step_4", "Datasets", "conf", "params.yaml"):
        (work/name).symlink_to((project/name).resolve())
    for folder in (project/"models"/task).glob("*_expert"): shutil.copytree(folder, work/"models"/task/folder.name)


def make(strategy, project, work, task):
    "Fuse by one strategy, calibrate, export"
    params = read_yaml(project/"params.yaml")
    about, experts = params["tasks"][task], experts_of(task, params)
    asked = task, about["field"], about["datasets"], experts, about["tests"]
    with_experts(project, work, task)
    fuse(work, work, load_task(work, *asked), strategy, [strategy], **SHORT)
    calibrate_all(work, work, *asked)
    export_all(work, work, task, about["datasets"], precisions=("float32",), n_posts=24)


def main():
    "Every strategy, or some"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path, help="folder of a finished run")
    parser.add_argument("folder", type=Path, help="receives a detector a strategy")
    parser.add_argument("--task", default="fake_news")
    parser.add_argument("--only", nargs="+", choices=EVERY, default=EVERY, metavar="STRATEGY", help=", ".join(EVERY))
    args = parser.parse_args()
    for strategy in args.only:
        work = args.folder/".work"/strategy
        try: make(strategy, args.project, work, args.task)
        except FakesError as e: print(f"{strategy}: {e}")      # some suit no task of two modalities
        else: shutil.move(work/"models"/args.task, args.folder/strategy)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__": main()
