"""For griffe, which reads the library for the reference: what our notebooks write beside the code and not in docstrings.

Words stand as comments beside parameters, fields and what is returned; methods come to their classes by `@patch`; an
error is the text of its `raise`; each function lies in a cell of a notebook. None of it is run to be read.
"""
import ast
import re
from functools import cache

import griffe

from multimodal_fakes.stubs import comment_of, docments, source_of

CELL = re.compile(r"# %% (?:\.\./)*(nbs/\S+)\.ipynb #(\w+)")
BOOK = "../.."            # from a page of the reference to the root of the site
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
    return f'[Source: {notebook.split("/")[-1]}]({BOOK}/{notebook}.html#cell-{cell}){{ .source }}'


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


def sections(func, node, code):
    "What a page says of a function: words, parameters, what is returned, errors, where it stands"
    words = docments(source_of(node, code))
    parameters = [griffe.DocstringParameter(p.name, annotation=p.annotation, description=words.get(p.name, ""),
                                            value=p.default)
                  for p in func.parameters if p.name not in ("self", "cls")]
    raised = [griffe.DocstringRaise(annotation=kind, description=MARKS.sub(r"\\\1", text))
              for kind, text in errors_of(node)]
    returned = [griffe.DocstringReturn("", annotation=func.returns, description=words.get("return", ""))]
    told = [griffe.DocstringSectionText(func.docstring.value)] if func.docstring else []
    if any(p.description for p in parameters): told.append(griffe.DocstringSectionParameters(parameters))
    if "return" in words: told.append(griffe.DocstringSectionReturns(returned))
    if raised: told.append(griffe.DocstringSectionRaises(raised))
    return [*told, griffe.DocstringSectionText(cell_of(node, code))]


def tell(obj, told):
    "Give an object its sections, as if they had been parsed"
    if obj.docstring is None: obj.docstring = griffe.Docstring("", parent=obj)
    obj.docstring.__dict__["parsed"] = told


class Docments(griffe.Extension):
    "Comments, patched methods and errors"
    def __init__(self):
        self.patched, self.plain = [], {}

    def on_function_instance(self, *, node, func, agent, **kwargs):
        "Read the words of a function, and remember where it belongs"
        tell(func, sections(func, node, agent.code))
        patched = patched_class(node)
        if patched: self.patched.append((func, *patched))
        else: self.plain[func.path] = func

    def on_attribute_instance(self, *, node, attr, agent, **kwargs):
        "The comment beside a field or a constant is its docstring"
        comment = comment_of(node, agent.code)
        if comment and attr.docstring is None: attr.docstring = griffe.Docstring(comment, parent=attr)

    def on_class_instance(self, *, node, cls, agent, **kwargs):
        "Where a class stands"
        told = [griffe.DocstringSectionText(cls.docstring.value)] if cls.docstring else []
        tell(cls, [*told, griffe.DocstringSectionText(cell_of(node, agent.code))])

    def on_package(self, *, pkg, loader, **kwargs):
        "Let patched functions be methods of their classes"
        for func, name, label in self.patched:
            module, former = func.parent, self.plain.get(func.path)
            if module.members.get(func.name) is func: del module.members[func.name]
            if former: module.members[func.name] = former
            home = loader.modules_collection[module.resolve(name)]
            if label: func.labels.add(label)
            func.decorators, func.parent = [], home
            home.members.setdefault(func.name, func)
