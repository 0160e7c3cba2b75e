"""Whether alerts.yaml and grafana.json ask for what a service really exports, in PromQL that can be read.

What no file here can tell: whether a Grafana shows the dashboard as it should, and whether the limits of the rules
suit anybody. PromQL is parsed by `promql_parser` where that is installed (`pip install promql-parser`), and alerts.yaml
by promtool in `make deploy-lint`; without them brackets, names of metrics, labels and functions are looked at."""
import contextlib
import json
import re
import tempfile
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families

from multimodal_fakes.service.respond import Service, read_conf
from multimodal_fakes.track.traffic import as_posts, made_cast, play
from multimodal_fakes.track.windows import Window, describe

with contextlib.suppress(ModuleNotFoundError):
    import promql_parser

HERE = Path(__file__).parent
PANELS = {"row", "timeseries", "table", "stat"}                     # kinds that the dashboard is made of
WIDTH = 24                                                          # of Grafana's grid
ENDS = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}      # of names, by the type of the metric
BESIDE = {"up": {"instance", "job"}}                                # metrics of Prometheus itself
SCRAPED = {"instance", "job"}                                       # labels that it adds
WORDS = set("""sum min max avg count by without on ignoring group_left group_right offset bool and or unless
rate increase histogram_quantile le""".split())                     # of PromQL, as far as they are used here
VARIABLES = {"$__rate_interval": "5m", "$task": ".*", "${datasource}": "prometheus"}

def a_look():
    "What a watch hands on, with every quantity that there is"
    cast = made_cast(200)
    posts = as_posts(cast, play(cast, 0.2, per_week=1000))
    rows = describe(posts, [Window(0, 1, slice(None))])
    names = [row["quantity"] for row in rows] + ["unfamiliar", "accuracy", "brier", "ece"]
    now = [dict(quantity=name, value=.5, low=.4, high=.6) for name in names]
    found = dict(limit=90.0, models={"v1 p1": 1}, evidence={"has_vision": 1.0}, alarms=[], now=now)
    return dict(task="fake_news", at=0.0) | found

def exported():
    "name → label → values, of everything that /metrics of a service with a watch and a memory can show"
    with tempfile.TemporaryDirectory() as folder:
        history = {"url": f"sqlite:///{folder}/history.db"}
        memory = {"folder": f"{folder}/memory"}
        engine = {"tasks": ["fake_news"]}
        conf = read_conf(None, history=history, watch={"enabled": True}, memory=memory, engine=engine)
        service = Service(conf)      # which is not started
        service.lookout.looks = {"fake_news": a_look()}
        service.meters.count("/predict", "POST", 200, .1)
        families = list(text_string_to_metric_families(service.meters.text().decode()))
        service.store.close()
        service.memory.memory.close()
    labels = {name: {label: set() for label in SCRAPED} for name in BESIDE}
    for family in families:
        for end in ENDS.get(family.type, ("",)):
            labels.setdefault(f"{family.name}{end}", {label: set() for label in SCRAPED})
        for sample in family.samples:
            own = labels.setdefault(sample.name, {label: set() for label in SCRAPED})
            for label, value in sample.labels.items():
                own.setdefault(label, set()).add(value)
    return labels

def wrong_query(query, known):
    "What is wrong in PromQL; known are the metrics of `exported`"
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    if "promql_parser" in globals():
        try:
            promql_parser.parse(query)
        except ValueError as e:
            yield f"is no PromQL: {e}"
    bare = re.sub(r'"[^"]*"', '""', query)
    for pair in ("()", "{}", "[]"):
        if bare.count(pair[0]) != bare.count(pair[1]):
            yield f"has {bare.count(pair[0])} {pair[0]} and {bare.count(pair[1])} {pair[1]}"
    grouping = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
    outside = grouping.sub(" ", re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare))
    asked = set(re.findall(r"[a-zA-Z_:][\w:]*", outside)) - WORDS
    for name in sorted(asked):
        if name not in known and not re.fullmatch(r"\d+[smhdwy]|[smhdwy]", name):
            yield f"asks for {name}, which is no metric of the service"
    for name, matchers in re.findall(r"(\w+)\{([^}]*)\}", query):
        yield from wrong_matchers(name, matchers, known.get(name, {}))

def wrong_matchers(name, matchers, labels):
    "Labels that a metric does not have, and values that it never has, as far as they can be known"
    for label, sign, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers):
        has = labels.get(label)
        if labels.keys() - SCRAPED and has is None:
            yield f"asks for label {label} of {name}, which has {', '.join(sorted(labels.keys() - SCRAPED))}"
        elif label == "quantity" and sign in ("=", "=~") and not any(re.fullmatch(value, one) for one in has):
            yield f"asks for quantity {value} of {name}, which never has it"

def wrong_alerts(known):
    "Rules without a name, with words for nobody, or about what is not exported"
    names = set()
    for group in yaml.safe_load((HERE/"alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            where = f"alerts.yaml, {rule['alert']}"
            for problem in wrong_query(rule["expr"], known):
                yield f"{where}: {problem}"
            if not {"summary", "description"} <= set(rule["annotations"]):
                yield f"{where}: summary and description are for whoever is woken"
            if rule["labels"].get("severity") not in ("page", "ticket"):
                yield f"{where}: severity is page or ticket"
            if rule["alert"] in names:
                yield f"{where}: there are two of this name"
            names.add(rule["alert"])

def wrong_dashboard(known):
    "Panels that do not fit, and queries about what is not exported"
    board = json.loads((HERE/"grafana.json").read_text())
    variables = {one["name"] for one in board["templating"]["list"]}
    for name in ("title", "uid", "schemaVersion", "panels", "time"):
        if not board.get(name):
            yield f"grafana.json has no {name}"
    taken, ids = {}, set()
    for panel in board["panels"]:
        where = f"grafana.json, {panel['title']}"
        yield from (f"{where}: {problem}" for problem in wrong_panel(panel, known, variables))
        if panel["id"] in ids:
            yield f"{where}: another panel has the id {panel['id']}"
        ids.add(panel["id"])
        for cell in cells_of(panel["gridPos"]):
            if taken.setdefault(cell, panel["title"]) != panel["title"]:
                yield f"{where}: lies over {taken[cell]}"
                break

def cells_of(grid):
    "The places of the grid that a panel takes"
    return [(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])]

def wrong_panel(panel, known, variables):
    "What is wrong in one panel"
    grid = panel["gridPos"]
    if panel["type"] not in PANELS:
        yield f"is of type {panel['type']}, not one of {', '.join(sorted(PANELS))}"
    if grid["x"] < 0 or grid["x"] + grid["w"] > WIDTH:
        yield f"is wider than the {WIDTH} columns of the grid"
    if panel["type"] == "row":
        return
    if not panel.get("description") or not panel["fieldConfig"]["defaults"].get("unit"):
        yield "has no description or no unit"
    if not panel.get("targets"):
        yield "has no query"
    letters = [target["refId"] for target in panel.get("targets", [])]
    if len(letters) != len(set(letters)):
        yield "has two queries with one refId"
    for target in panel.get("targets", []):
        used = set(re.findall(r"\$\{?([a-z]\w*)", target["expr"] + json.dumps(target["datasource"])))
        if used - variables:
            yield f"uses the variable {', '.join(used - variables)}, which the dashboard does not have"
        yield from wrong_query(target["expr"], known)
