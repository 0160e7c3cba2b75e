"""For griffe, which reads the library for the reference: what notebooks write beside code and not in docstrings.

Words stand as comments beside parameters, fields and what is returned; methods come to their classes by `@patch`; an
error is the text of its `raise`; each function lies in a cell of a notebook. None of it is run to be read.
"""
import ast
import json
import re
from functools import cache
from pathlib import Path

import griffe
import yaml

from multimodal_fakes.stubs import comment_of, docments, source_of

CELL = re.compile(r"# %% (?:\.\./)*(nbs/\S+)\.ipynb #(\w+)")
BOOK = "../.."                                           # from a page of the reference to the root of the site
READ = "multimodal_fakes"                                # what is kept with a function for the end
TOLD = Path("_docs/made/told.json")                      # path of a function → what was said of it, for check.py
COMMON = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
MARKS = re.compile(r"([<*_\[\]`])")


@cache
def cells(code):
    "(line, notebook, cell) of each cell that a module was exported from"
    found = [(number, CELL.match(line)) for number, line in enumerate(code.splitlines(), 1)]
    return [(number, *match.groups()) for number, match in found if match]


def cell_of(node, code):
    "A link to the cell of the book that a definition stands in"
    before = [at for at in cells(code) if at[0] < node.lineno]
    if not before: return ""            # a file that no notebook wrote
    _, notebook, cell = before[-1]
    return f'[Source: {notebook.split("/")[-1]}]({BOOK}/{notebook}.md#cell-{cell}){{ .source }}'


def words_of(message):
    "The text of an error, dots where it says what came"
    if isinstance(message, ast.Constant): return str(message.value)
    if not isinstance(message, ast.JoinedStr): return ""
    return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in message.values)


def errors_of(function):
    "(kind, text) of each error that a function raises itself"
    told = {}
    for node in ast.walk(function):
        if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call): continue
        kind = ast.unparse(node.exc.func)
        texts = [text for text in map(words_of, node.exc.args) if text]
        if kind.split(".")[-1][0].isupper(): told[kind, " ".join(texts)] = None
    return list(told)


def patched_class(function):
    "Name of the class that `@patch` gives a function to, and what it becomes there; none where it is a function"
    for decorator in function.decorator_list:
        written = ast.unparse(decorator)
        if written.partition("(")[0] != "patch": continue
        label = "property" if "as_prop=True" in written else "classmethod" if "cls_method=True" in written else None
        return ast.unparse(function.args.args[0].annotation).strip("'\""), label
    return None


def tell(obj, told):
    "Give an object its sections, as if they had been parsed"
    if obj.docstring is None: obj.docstring = griffe.Docstring("", parent=obj)
    obj.docstring.__dict__["parsed"] = told


def ancestors(cls):
    "The classes of the library that a class is made of, nearest first"
    for base in cls.resolved_bases:
        home = base.final_target if isinstance(base, griffe.Alias) else base
        yield home
        yield from ancestors(home)


def overridden(func):
    "The method of a base class that a method stands for"
    homes = ancestors(func.parent) if isinstance(func.parent, griffe.Class) else []
    formers = (home.members.get(func.name) for home in homes)
    return next((former for former in formers if former is not None and READ in former.extra), None)


class Docments(griffe.Extension):
    "Comments, patched methods, errors, and what is told by a base class, a type or a common name"
    def __init__(self):
        self.patched, self.plain, self.functions, self.classes = [], {}, [], {}

    def on_function_instance(self, *, node, func, agent, **kwargs):
        "Read the words of a function, and remember where it belongs"
        if agent.filepath.suffix != ".py": return           # a stub says less
        words = docments(source_of(node, agent.code))
        func.extra[READ] = {"words": words, "errors": errors_of(node), "cell": cell_of(node, agent.code),
                            "module": func.module.path}
        self.functions.append(func)
        patched = patched_class(node)
        if patched: self.patched.append((func, *patched))
        else: self.plain[func.path] = func

    def on_attribute_instance(self, *, node, attr, agent, **kwargs):
        "The comment beside a field or a constant is its docstring"
        comment = comment_of(node, agent.code)
        if comment and attr.docstring is None: attr.docstring = griffe.Docstring(comment, parent=attr)

    def on_class_instance(self, *, node, cls, agent, **kwargs):
        "Where a class stands"
        if agent.filepath.suffix != ".py": return
        told = [griffe.DocstringSectionText(cls.docstring.value)] if cls.docstring else []
        tell(cls, [*told, griffe.DocstringSectionText(cell_of(node, agent.code))])
        self.classes[cls.name] = cls

    def on_package(self, *, pkg, loader, **kwargs):
        "Let patched functions be methods of their classes, then tell of each function what there is"
        for func, name, label in self.patched:
            home = loader.modules_collection[func.parent.resolve(name)]
            self.move(func, home, label)
        told = {func.path: self.tell_function(func) for func in self.functions}
        TOLD.write_text(json.dumps(told), encoding="utf-8")

    def move(self, func, home, label):
        "A function to its class"
        module, former = func.parent, self.plain.get(func.path)
        if module.members.get(func.name) is func: del module.members[func.name]
        if former: module.members[func.name] = former
        if label: func.labels.add(label)
        func.decorators, func.parent = [], home
        home.members[func.name] = func

    def words_for(self, parameter, words, module):
        "What a parameter is: beside it, in the base class, by its class, by its name in the module or anywhere"
        if parameter.name in words: return words[parameter.name]
        for name in re.findall(r"[A-Z]\w+", str(parameter.annotation or "")):
            known = self.classes.get(name)
            if known is not None and known.docstring: return f"`{name}`: {known.docstring.value.splitlines()[0]}"
        scopes = [scope for scope in COMMON if f"{module}.".startswith(f"multimodal_fakes.{scope}.")]
        for scope in [*sorted(scopes, key=len, reverse=True), "everywhere"]:
            if parameter.name in COMMON[scope]: return COMMON[scope][parameter.name]
        return ""

    def tell_function(self, func):
        "Give a function its sections; what there was to say, and of which parameters there was nothing"
        read, base = func.extra[READ], overridden(func)
        words = (base.extra[READ]["words"] if base else {}) | read["words"]
        spoken = [f.docstring.value for f in (func, base) if f and f.docstring]
        common = COMMON["methods"].get(func.name, "") if isinstance(func.parent, griffe.Class) else ""
        value = next(iter(spoken), common)
        parameters = [p for p in func.parameters if p.name not in ("self", "cls")]
        shown = [griffe.DocstringParameter(p.name, annotation=p.annotation, value=p.default,
                                           description=self.words_for(p, words, read["module"])) for p in parameters]
        told = [griffe.DocstringSectionText(value)] if value else []
        if any(p.description for p in shown): told.append(griffe.DocstringSectionParameters(shown))
        if "return" in words:
            returned = griffe.DocstringReturn("", annotation=func.returns, description=words["return"])
            told.append(griffe.DocstringSectionReturns([returned]))
        raised = [griffe.DocstringRaise(annotation=kind, description=MARKS.sub(r"\\\1", text))
                  for kind, text in read["errors"]]
        if raised: told.append(griffe.DocstringSectionRaises(raised))
        tell(func, [*told, griffe.DocstringSectionText(read["cell"])])
        return {"text": bool(value), "lacking": [p.name for p in shown if not p.description]}
