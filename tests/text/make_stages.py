#!/usr/bin/env python3
"""Writes stages.json: what each component of a tokenizer.json makes of small inputs, by Hugging Face tokenizers 0.23.

  make_stages.py > stages.json
"""

import itertools
import json
import sys

import tokenizers
from tokenizers import Tokenizer

LETTERS = ["<unk>", *"abcdefghijklmnopqrstuvwxyzABé,. \t▁"]
TEXTS = ["", "a", " a  b ", "a,b,,c", ",a,", "1a23 b4", "Hello, world! It's 2024.", "\tx\n\ny ", "ÄÖ é e\u0301ﬁ İ", "東京 tower",
         "a\u00a0b\u200bc\u3000d", "--a--", "👩‍👩‍👧 ok"]


def tokenizer(model=None, **parts):
    model = model or {"type": "BPE", "vocab": {c: i for i, c in enumerate(LETTERS)}, "merges": [], "unk_token": "<unk>"}
    full = dict(version="1.0", truncation=None, padding=None, added_tokens=[], normalizer=None, pre_tokenizer=None,
                post_processor=None, decoder=None, model=model)
    return Tokenizer.from_str(json.dumps(full | parts))


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def sequence(key, *parts):
    return {"type": "Sequence", key: list(parts)}


NORMALIZERS = [
    {"type": "NFC"}, {"type": "NFD"}, {"type": "NFKC"}, {"type": "NFKD"}, {"type": "Lowercase"}, {"type": "StripAccents"},
    {"type": "Strip", "strip_left": True, "strip_right": False}, {"type": "Strip", "strip_left": False, "strip_right": True},
    {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Prepend", "prepend": "▁"}, {"type": "ByteLevel"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, {"type": "Replace", "pattern": {"Regex": "[0-9]+"}, "content": "#"},
    {"type": "Replace", "pattern": {"Regex": "a|,"}, "content": ""}, {"type": "Replace", "pattern": {"Regex": "(?=b)"}, "content": "<"},
    *({"type": "BertNormalizer", "clean_text": a, "handle_chinese_chars": b, "strip_accents": c, "lowercase": d}
      for a, b, c, d in [(True, True, None, True), (True, True, None, False), (False, True, True, False), (True, False, False, True)]),
    sequence("normalizers"), sequence("normalizers", {"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}),
    sequence("normalizers", {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
]

BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
PRE_TOKENIZERS = [
    *(split({"String": ","}, b, i) for b in BEHAVIORS for i in (False, True)),
    *(split({"Regex": r"\s+|\d"}, b, i) for b in BEHAVIORS for i in (False, True)),
    *({"type": "Punctuation", "behavior": b} for b in BEHAVIORS), {"type": "Punctuation"},
    {"type": "Digits", "individual_digits": False}, {"type": "Digits", "individual_digits": True},
    {"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "BertPreTokenizer"},
    *({"type": "ByteLevel", "add_prefix_space": a, "trim_offsets": True, "use_regex": b} for a in (False, True) for b in (False, True)),
    *({"type": "Metaspace", "replacement": "▁", "prepend_scheme": p, "split": s} for p in ("always", "first", "never") for s in (False, True)),
    sequence("pretokenizers", {"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}),
    sequence("pretokenizers", {"type": "Whitespace"}, {"type": "Digits", "individual_digits": True}),
    sequence("pretokenizers", {"type": "Punctuation", "behavior": "Contiguous"},
             {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}),
]

PATTERNS = [
    r"\d+", r"\D+", r"\h+", r"\w+", r"\W+", r"\s", r"\S+", r"\bIt", r"\B\w", r"[\w-]+", r"[^\w]", r"[\s\d]+", r"[^\s\p{L}\p{N}]+", r"[\h,]+",
    r"\p{L}+", r"\p{Lu}", r"\P{L}+", r"\p{N}{1,3}", r"\p{Han}+", r"\p{M}", r"\p{^L}", r"[\p{Lu}\p{Lt}]", r"a{,2}", r"l{2}", r"-{1,}", r"{a}", r"a{x}", r"a{,}",
    r"[a-z]*+", r"[a-z]++d", r"a?+", r"(?>a|ab)c", r"(?i:HELLO)", r"(?i)it's", r"(?i:K|ſ)", r"(?<=,)b", r"(?<!,)[bc]", r"\d(?=\d)", r"[a-z](?![a-z])", r"^\w", r"\w$",
    r".", r"a.b", r"(?:a|b|c)", r"(.)\1", r"é", r"\u00e9", r"\x61", r"\x{e9}", r"\t", r"\n+", r"\r", r"\A.", r".\z", r".\Z",
    r"[\s\S]", r"\.", r"\-\-", r"[.\-!]", r"(?x: l l )", r"'s|'t|'re", r"\s+(?!\S)|\s+", r"\s*[\r\n]+", r"", r"x*", r"[가-힣]", r"\p{Script=Greek}", r"[^a]b?", r"\w+?", r"\w{2,3}?",
    r"\p{Katakana}+", r"\p{Greek}", r"\p{Latin}+", r"\p{Xan}", r"a{1,2,3}", r"(?:,|a){2,}", r"\p{Script_Extensions=Greek}",
]
REGEX_TEXTS = ["Hello, world! It's 2024.", "aa,b,c ab abc", "\tx\n\ny ", "é e\u0301 Ä²٣", "東京 --a--", "Kk ſs\u2028q\x85r\x0b", "カー、α\u0342・ア ½ aªb"]

TOKENS = [["▁Hello", "▁wor", "ld", "▁"], ["Hello", "##ing", "wor", "##ld", ".", "do", "not", "n't", "'", "s"], ["<0xE4>", "<0xBD>", "<0xA0>", "a", "<0xE4>", "<0xBD>", "b"],
          ["  a  ", " b", "c "], ["hel", "lo</w>", "wor", "ld</w>"], ["</w>", "a</w>b</w>"], ["ĠHello", "ä½", "ł", "Ġ", "é"], ["<0xFF>"], ["<0xzz>", "<0x41>"], [],
          ["_", "_a_"], [" ", "▁▁a▁", "▁b"], [" ", " x"], ["aab", "ba"]]
STRIPS = [{"type": "Strip", "content": c, "start": a, "stop": b} for c, a, b in [(" ", 1, 0), (" ", 0, 1), (" ", 2, 2), ("_", 1, 1), ("a", 5, 0)]]
DECODERS = [
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}, {"type": "ByteFallback"}, {"type": "Fuse"}, *STRIPS,
    *({"type": "WordPiece", "prefix": "##", "cleanup": c} for c in (False, True)),
    *({"type": "Metaspace", "replacement": "▁", "prepend_scheme": p, "split": True} for p in ("always", "first", "never")),
    {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": False},
    {"type": "BPEDecoder", "suffix": "</w>"}, {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "Replace", "pattern": {"Regex": "[ab]+"}, "content": "<>"},
    sequence("decoders", {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, STRIPS[0]),
    *(sequence("decoders", {"type": "Fuse"}, s) for s in STRIPS), sequence("decoders", {"type": "ByteFallback"}, {"type": "BPEDecoder", "suffix": "</w>"}),
    sequence("decoders", {"type": "Fuse"}, {"type": "Replace", "pattern": {"String": " "}, "content": "_"}), sequence("decoders"),
]


def special(*names):
    return {n: {"id": n, "ids": [LETTERS.index(c) for c in n], "tokens": list(n)} for n in names}


def template(single, *names):
    def piece(p):
        return {"Sequence": {"id": "A", "type_id": 0}} if p == "$A" else {"SpecialToken": {"id": p, "type_id": 0}}
    single = [piece(p) for p in single.split()]
    return {"type": "TemplateProcessing", "single": single, "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": special(*names)}


BERT = {"type": "BertProcessing", "sep": ["s", LETTERS.index("s")], "cls": ["c", LETTERS.index("c")]}
ROBERTA = {"type": "RobertaProcessing", "sep": ["y", LETTERS.index("y")], "cls": ["x", LETTERS.index("x")], "trim_offsets": True, "add_prefix_space": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
POST_PROCESSORS = [BERT, ROBERTA, BYTES, template("$A"), template("b $A", "b"), template("$A e", "e"), template("b c $A de", "b", "c", "de"),
                   *(sequence("processors", *p) for p in [[], [BYTES], [BYTES, BERT], [BERT, ROBERTA], [BYTES, template("b $A", "b"), BYTES], [ROBERTA, template("b $A de", "b", "de")]])]

ADDED_TEXTS = ["ab", " ab ", "xab", "abx", "ab,ab", "  ab  ab\tx", "AB", "xAB  ", "a b", "éab", "abé ab.", "  ab", "ababab ab", "\u00a0ab\u3000x"]


def added():
    for single, left, right, normalized, is_special in itertools.product((False, True), repeat=5):
        token = dict(id=len(LETTERS), content="AB" if normalized else "ab", single_word=single, lstrip=left, rstrip=right, normalized=normalized, special=is_special)
        yield [token]
    one = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
    yield [one | dict(id=len(LETTERS), content="abab"), one | dict(id=len(LETTERS) + 1, content="ab", lstrip=True), one | dict(id=len(LETTERS) + 2, content="xA", normalized=True)]
    yield [one | dict(id=LETTERS.index("a"), content="a", special=True), one | dict(id=LETTERS.index(" "), content=" ", rstrip=True)]


def compact(cases):
    """[{json, cases: [[input, output] ..]} ..]"""
    return [dict(json=j, cases=c) for j, c in cases]


def main():
    out = {"tokenizers": tokenizers.__version__}
    out["normalizer"] = compact((j, [[s, tokenizer(normalizer=j).normalizer.normalize_str(s)] for s in TEXTS]) for j in NORMALIZERS)

    def pieces(j, texts):
        try:
            t = tokenizer(pre_tokenizer=j)
        except Exception:  # no expression
            return None
        return [[s, [p for p, _ in t.pre_tokenizer.pre_tokenize_str(s)]] for s in texts]
    out["pre_tokenizer"] = compact((j, pieces(j, TEXTS)) for j in PRE_TOKENIZERS)
    # What is left when everything but the matches is removed.
    out["regex"] = compact((p, pieces(split({"Regex": p}, "Removed", True), REGEX_TEXTS)) for p in PATTERNS)

    def texts_of(j):
        for tokens in TOKENS:
            try:
                yield [tokens, tokenizer(decoder=j).decoder.decode(tokens)]
            except BaseException as error:  # a panic of the library: Strip takes more than there is
                if type(error).__name__ != "PanicException":
                    raise
    out["decoder"] = compact((j, list(texts_of(j))) for j in DECODERS)
    out["post_processor"] = compact((j, [[s, tokenizer(post_processor=j).encode(s).ids] for s in ("", "a", "ab")]) for j in POST_PROCESSORS)

    def marked(tokens, texts):
        t = tokenizer(added_tokens=tokens, normalizer={"type": "Lowercase"}, decoder={"type": "Fuse"})
        for text in texts:
            ids = t.encode(text).ids
            yield [text, ids, t.decode(ids, skip_special_tokens=False), t.decode(ids)]
    out["added_tokens"] = compact((j, list(marked(j, ADDED_TEXTS))) for j in added())
    out["vocabulary"] = LETTERS
    lines = []
    for key, value in out.items():
        if isinstance(value, list) and isinstance(value[0], dict):
            rows = ",\n".join(json.dumps(v, ensure_ascii=False, separators=(",", ":")) for v in value)
            lines.append(f"{json.dumps(key)}: [\n{rows}\n]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    sys.exit(main())
