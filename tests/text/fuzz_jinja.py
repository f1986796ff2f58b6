#!/usr/bin/env python3
"""Random templates through Jinja and through plait's interpreter.

    /work/venv-hf/bin/python tests/text/fuzz_jinja.py --n 20000 --seed 1 --test build/release/tests/text_test
    ... --keep 400 tests/text/jinja_cases.json     # writes a sample as the committed cases instead of testing

Expected texts come from the very environment transformers 5.23 renders chat templates with. A template Jinja
raises on must be refused; one whose result holds an address or needs integers beyond 64 bits is not used, and
neither is what jinja.md lists as not interpreted or as known to differ. Exits 0 when nothing differs.
"""

import argparse
import copy
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import warnings

from transformers.utils.chat_template_utils import _compile_jinja_template

TEXTS = ["", "a", "abc", " x ", "Hello World", "a,b,,c", "line1\nline2\n", "Straße", "ΟΔΟΣ ς", "日本語", "🐈 x", "<b>&'\"",
         "12", "-3", "4.5", "1e3", " 7 ", "0x1f", "True", "ǆ ǅ", "tab\there", "İi", "a-b c(d", "\u200b\u00a0", "x" * 30]
NUMBERS = ["0", "1", "2", "-1", "3", "7", "10", "255", "0.5", "1.5", "2.5", "-0.0", "1e16", "1.0", "1e-5", "123456789", "0.1", "3.14159"]
VARIABLES = {
    "s": "some Text", "t": "", "u": "Ünïcödé 日本", "i": 5, "j": -3, "f": 2.75, "z": 0, "yes": True, "no": False, "nil": None,
    "l": [3, 1, 2], "e": [], "w": ["b", "A", "c", "B"], "m": [1, "a", None, 2.0, True], "n": [[1, 2], [3, 4]],
    "d": {"k": 1, "B": "x", "items": 7, "a": [1, {"q": "é\n\"<"}]}, "o": {},
    "users": [{"name": "Ann", "age": 31, "tags": ["x", "y"]}, {"name": "bob", "age": 4}, {"name": "Cy", "age": 31, "tags": []}],
    "msgs": [{"role": "system", "content": "be"}, {"role": "user", "content": " hi "},
             {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1.0, "y": [True, None]}}}]},
             {"role": "tool", "content": "42"}, {"role": "user", "content": [{"type": "text", "text": "part"}]}],
}
TEXT_FILTERS = ["upper", "lower", "capitalize", "title", "trim", "length", "list", "string", "first", "last", "reverse", "int", "float",
                "wordcount", "escape", "safe", "tojson", "count", "unique|list", "join('-')", "replace('a', 'bb')", "replace('', '.')",
                "replace('l', 'L', 1)", "indent", "indent(2, true)", "indent('> ', blank=true)", "truncate(5, true, '…')", "truncate(6)",
                "center(12)", "default('D')", "default('D', true)", "d(1)", "trim('aH ')", "sort|join", "format(1)", "int(7)", "int(base=16)",
                "batch(2)|list", "map('upper')|list", "select('in', 'abc')|list", "min", "max", "e", "forceescape", "float(1.5)"]
LIST_FILTERS = ["length", "first", "last", "list", "reverse|list", "sort", "sort(reverse=true)", "unique|list", "join(', ')", "join", "sum",
                "min", "max", "tojson", "tojson(indent=2)", "map('string')|list", "map('upper')|join('|')", "select|list", "reject|list",
                "select('number')|list", "reject('none')|list", "select('gt', 1)|list", "batch(2)|list", "batch(2, 'z')|list", "string",
                "map('int')|list", "select('string')|list", "sum(start=10)", "sort(case_sensitive=true)", "default([])", "count",
                "select('odd')|first", "map('length')|list", "select('defined')|list", "items|list", "dictsort"]
DICT_FILTERS = ["items|list", "dictsort", "dictsort(by='value')", "dictsort(true, reverse=true)", "length", "list", "tojson", "tojson(indent=4)",
                "tojson(sort_keys=true)", "tojson(separators=(',', ':'))", "tojson(ensure_ascii=true)", "first", "last", "string", "join(',')",
                "map('upper')|list", "attr('items')", "default(1)", "sort", "reverse|list", "tojson(indent='\t')"]
RECORD_FILTERS = ["map(attribute='name')|list", "map(attribute='tags')|list", "map(attribute='tags', default=[])|list", "selectattr('tags')|list",
                  "selectattr('tags', 'defined')|list", "rejectattr('age', 'equalto', 31)|list", "sort(attribute='age,name')|map(attribute='name')|join",
                  "sort(attribute='name')|first", "sum(attribute='age')", "unique(attribute='age')|list", "max(attribute='age')", "min(attribute='name')",
                  "map(attribute='tags.0')|list", "selectattr('name', 'in', ['Ann', 'Cy'])|map(attribute='age')|list", "join(',', attribute='name')",
                  "selectattr('age', '>', 5)|list|length", "rejectattr('tags')|list", "selectattr('nope.deep')|list", "groupby('age')"]
NUMBER_FILTERS = ["abs", "round", "round(1)", "round(2, 'floor')", "round(method='ceil')", "round(-1)", "int", "float", "string", "tojson",
                  "default(3)", "length", "upper", "list"]
METHODS = ["upper()", "lower()", "title()", "capitalize()", "strip()", "lstrip()", "rstrip()", "split()", "split(' ')", "split('l', 1)",
           "rsplit(maxsplit=1)", "rsplit('a', 1)", "split(sep=',', maxsplit=2)", "strip('a ')", "lstrip('aH')", "rstrip('d\\n')",
           "startswith('a')", "startswith(('H', 'x'))", "endswith('c')", "endswith('c', 1)", "replace('a', 'b')", "replace('l', '', 1)", "find('l')",
           "rfind('l')", "index('a')", "count('l')", "count('')", "splitlines()", "splitlines(true)", "partition(' ')", "rpartition('l')", "isdigit()",
           "isalpha()", "isalnum()", "isspace()", "isupper()", "islower()", "isascii()", "swapcase()", "zfill(6)", "ljust(6, '.')", "rjust(9)", "center(7, '*')",
           "removeprefix('a')", "removesuffix('c')", "join(['p', 'q'])", "join('xyz')", "find('o', 3)", "find('l', -4, -1)", "isdecimal()", "isprintable()", "nope()"]
TESTS = ["defined", "undefined", "none", "boolean", "true", "false", "integer", "float", "number", "string", "mapping", "sequence", "iterable",
         "callable", "odd", "even", "lower", "upper", "divisibleby 3", "divisibleby(2)", "in [1, 'a', none]", "in 'abc'", "eq 1", "equalto('a')", "ne 2", "gt 1",
         "lt(5)", "ge 0", "le 2.5", "sameas true", "sameas none", "escaped", "filter", "test"]
OPERATORS = ["+", "-", "*", "/", "//", "%", "~", "and", "or", "==", "!=", "<", "<=", ">", ">=", "in", "not in"]


class Grammar:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def pick(self, items):
        return self.r.choice(items)

    def text(self):
        value = self.pick(TEXTS)
        quote = self.pick("'\"")
        for old, new in (("\\", "\\\\"), ("\n", "\\n"), ("\t", "\\t"), (quote, "\\" + quote)):
            value = value.replace(old, new)
        return quote + value + quote

    def atom(self):
        kind = self.r.randrange(12)
        if kind < 3:
            return self.text()
        if kind < 5:
            return self.pick(NUMBERS)
        if kind < 9:
            return self.pick(list(VARIABLES) + ["missing", "x"])
        return self.pick(["true", "false", "none", "True", "None", "[]", "{}", "()", "(1,)", "range(4)", "range(5, 0, -2)", "loop.index",
                          "msgs[0]", "users[-1].name", "d.a[1].q", "d['items']", "ns.v"])

    def listing(self, depth):
        if self.r.random() < 0.5:
            return self.pick(["l", "e", "w", "m", "n", "users", "msgs", "range(3)", "d.items()", "d.keys()", "d.values()", "s.split()", "msgs[1:]",
                              "msgs[::-1]", "w|unique", "l|map('string')", "o", "d", "s"])
        return "[" + ", ".join(self.expr(depth - 1) for _ in range(self.r.randrange(4))) + "]"

    def expr(self, depth=3):
        if depth <= 0:
            return self.atom()
        kind = self.r.randrange(20)
        sub = lambda: self.expr(depth - 1)
        if kind < 3:
            return self.atom()
        if kind < 6:
            return f"{sub()} {self.pick(OPERATORS)} {sub()}"
        if kind == 6:  # Python's own powers have no bound
            return self.pick([f"({sub()})", f"{self.pick(['i', 'j', 'f', '(2)'])} ** {self.pick(['2', '0.5', '3', 'z', '(-1)', 'j'])}"])
        if kind == 7:
            return f"{self.text()}|{self.pick(TEXT_FILTERS)}"
        if kind == 8:
            return f"{self.pick(['s', 't', 'u', self.text()])}.{self.pick(METHODS)}"
        if kind == 9:
            return f"{self.pick(['l', 'w', 'm', 'n', 'e', self.listing(depth)])}|{self.pick(LIST_FILTERS)}"
        if kind == 10:
            return f"{self.pick(['d', 'o', 'users[0]', 'msgs[2]'])}|{self.pick(DICT_FILTERS)}"
        if kind == 11:
            return f"users|{self.pick(RECORD_FILTERS)}"
        if kind == 12:
            return f"{self.pick(NUMBERS + ['i', 'j', 'f'])}|{self.pick(NUMBER_FILTERS)}"
        if kind == 13:
            return f"{sub()} is {self.pick(['', 'not '])}{self.pick(TESTS)}"
        if kind == 14:
            return f"({sub()} if {sub()}" + (f" else {sub()})" if self.r.random() < 0.8 else ")")
        if kind == 15:
            bound = lambda: self.pick(["", "0", "1", "2", "-1", "-2", "5", "none", "i"])
            step = self.pick(["", "", ":", ":2", ":-1", ":-2", ":1"])
            return f"{self.pick(['s', 'u', 'l', 'w', 'm', 'msgs', 'n', 'i', 'd', 'nil', 'missing', self.text()])}[{bound()}:{bound()}{step}]"
        if kind == 16:
            return f"{self.pick(['d', 'o', 'l', 'w', 's', 'users', self.atom()])}[{self.pick(['0', '-1', '9', chr(39) + 'k' + chr(39), 'i', 'true', 'none', self.atom()])}]"
        if kind == 17:
            return "{" + ", ".join(f"{self.pick([self.text(), self.pick(NUMBERS), 'none', 'true'])}: {sub()}" for _ in range(self.r.randrange(3))) + "}"
        if kind == 18:
            return f"{self.pick(['not ', '-', '+'])}{self.pick(['s', 'i', 'f', 'l', 'missing', 'yes', '(' + sub() + ')'])}"
        return f"{sub()}|{self.pick(TEXT_FILTERS + LIST_FILTERS + DICT_FILTERS + NUMBER_FILTERS)}"

    def tag(self, inside, opening="{%", closing="%}"):
        return opening + self.pick(["", "", "-", "+"] if opening != "{{" else ["", "", "-"]) + " " + inside + " " + \
            self.pick(["", "", "-", "+"] if closing != "}}" else ["", "", "-"]) + closing

    def data(self):
        return self.pick(["", " ", "\n", "text", "  \n  ", "a\n", "\n\n b", "\t", "é\r\n", "{ not }", "  "])

    def block(self, depth, loops=0):
        return "".join(self.data() + self.statement(depth, loops) for _ in range(self.r.randrange(1, 4))) + self.data()

    def statement(self, depth, loops):
        kind = self.r.randrange(15) if depth > 0 else self.r.randrange(4)
        if kind < 3:
            return self.tag(self.expr(2), "{{", "}}")
        if kind == 3:
            return self.pick([self.tag(" a comment ", "{#", "#}"), self.tag(f"set x = {self.expr(2)}"), self.tag(f"set ns.v = {self.expr(2)}"),
                              self.tag("raw") .replace("+ raw", " raw").replace("raw +", "raw ") + self.data() + "{{ x }}" + self.tag("endraw")])
        inner = lambda more=0: self.block(depth - 1, loops + more)
        if kind < 6:
            text = self.tag("if " + self.expr(2)) + inner()
            if self.r.random() < 0.4:
                text += self.tag("elif " + self.expr(2)) + inner()
            if self.r.random() < 0.5:
                text += self.tag("else") + inner()
            return text + self.tag("endif")
        if kind < 10:
            target = self.pick(["x", "x", "a, b", "v"])
            head = f"for {target} in {self.listing(2)}" + (f" if {self.expr(1)}" if self.r.random() < 0.25 else "")
            text = self.tag(head) + self.pick(["", "{{ x }}", "{{ loop.index0 }}{{ loop.last }}", "{{ loop.revindex }}/{{ loop.length }}", "{{ loop.first }}",
                                               "{{ loop.previtem }}", "{{ loop.nextitem }}", "{{ loop.cycle('p', 'q') }}", "{{ loop.changed(x) }}"]) + inner(1)
            if self.r.random() < 0.3:
                text += self.tag("else") + inner()
            return text + self.tag("endfor")
        if kind == 10:
            return self.tag(self.pick(["set x", "set x | upper", "set x | trim | length", "set ns.v"])) + inner() + self.tag("endset")
        if kind == 11:
            return self.tag("filter " + self.pick(["upper", "trim", "replace('a', 'b')|upper", "indent(2)", "length"])) + inner() + self.tag("endfilter")
        if kind == 12 and loops:
            return self.tag(f"if {self.expr(1)}") + self.tag(self.pick(["break", "continue"])) + self.tag("endif")
        if kind == 13:
            name = self.pick(["macro_a", "macro_b"])
            return self.tag(f"macro {name}(p, q={self.expr(1)})") + "{{ p }}{{ q }}" + self.pick(["", "{{ varargs }}", "{{ kwargs }}"]) + self.block(depth - 1, 0) + \
                self.tag("endmacro") + self.tag(f"{name}({self.pick(['', self.expr(1), self.expr(1) + ', q=1', '*l', '1, 2, 3', 'z=2'])})", "{{", "}}")
        if kind == 14:
            return self.pick([self.tag("generation") + inner() * 0 + self.block(depth - 1, 0) + self.tag("endgeneration"),
                              self.tag(f"with v = {self.expr(1)}, y = x") + inner() + self.tag("endwith")])
        return self.tag(self.expr(3), "{{", "}}")

    def template(self):
        if self.r.random() < 0.5:
            return "{{ " + self.expr(4) + " }}"
        return "{% set ns = namespace(v=1) %}" + self.block(3)


# Addresses, and what jinja.md says it does not interpret.
UNUSABLE = re.compile(r"<(generator|built-in|bound|function|method|list_|filter|map|.*(object|iterator) at 0x|jinja2)|0x[0-9a-f]{9,}|Markup\(")
REFUSED = re.compile(r"groupby|\bself\b")
NOT_INTERPRETED = re.compile(r"is not interpreted|which plait does not interpret|is printed without|is compared|(makes|takes) more than")


def needs_wide_integers(text):
    return any(len(digits) > 18 for digits in re.findall(r"\d+", text))


def cases(count, seed):
    made, at = [], 0  # variables are copied: Jinja's indent adds to a list in place
    while len(made) < count:
        at += 1
        template = Grammar(seed * 1_000_003 + at).template()
        if REFUSED.search(template):
            continue
        case = {"template": template, "variables": VARIABLES}
        try:
            case["expected"] = _compile_jinja_template(template).render(**copy.deepcopy(VARIABLES))
        except RecursionError:
            continue
        except Exception as error:  # any exception is Jinja's refusal
            case["why"] = f"{type(error).__name__}: {error}"[:200]
        if UNUSABLE.search(case.get("expected", "")) or needs_wide_integers(case.get("expected", "")) or len(case.get("expected", "")) > 20000:
            continue
        made.append(case)
    return made


def failures(test, made):
    """The program's complaints, without those about what it says it does not interpret."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
        json.dump(made, file)
    environment = dict(os.environ, PLAIT_JINJA_CASES=file.name)
    run = subprocess.run([test, "--gtest_filter=Jinja.RendersAsJinja", "--gtest_brief=1"], env=environment, capture_output=True, text=True)
    os.unlink(file.name)
    blocks = re.split(r"^\S+/jinja_test\.cc:\d+: Failure\n", run.stdout, flags=re.M)
    if len(blocks) == 1 and run.returncode:
        return [run.stdout + run.stderr], []
    skipped = [b for b in blocks[1:] if NOT_INTERPRETED.search(b)]
    return [b for b in blocks[1:] if not NOT_INTERPRETED.search(b)], skipped


def main():
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--test", default="build/release/tests/text_test")
    parser.add_argument("--keep", nargs=2, metavar=("N", "FILE"))
    parser.add_argument("--show", type=int, default=10)
    args = parser.parse_args()
    made = cases(args.n, args.seed)
    raised = sum("expected" not in case for case in made)
    if args.keep:
        skipped = "".join(failures(args.test, made)[1])
        made = [c for c in made if c["template"].replace("\r\n", "\n") not in skipped]
        chosen = [c for c in made if "expected" in c and 0 < len(c["expected"]) < 300][: int(args.keep[0])]
        chosen += [c for c in made if "expected" not in c][: int(args.keep[0]) // 4]
        for case in chosen:
            names = {name: value for name, value in VARIABLES.items() if re.search(rf"\b{name}\b", case["template"])}
            case["variables"] = names
            case.pop("why", None)
        pathlib.Path(args.keep[1]).write_text("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in chosen) + "\n]\n")
        return 0
    wrong, skipped = failures(args.test, made)
    for block in wrong[: args.show]:
        print(block)
    print(f"{len(made)} templates ({raised} of them refused by Jinja), {len(skipped)} not interpreted or over a limit, {len(wrong)} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
