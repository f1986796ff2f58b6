#!/usr/bin/env python3
"""Compares plait's tokenizers with Hugging Face tokenizers (and the sentencepiece package) on made-up strings.

  fuzz.py --kind K [--n 2000] [--seed 1] [--vocab 2000] [--text FILE ..] [--program PATH] [--write DIR]
          [--characters] [--cuts] [--broken]

Trains a tokenizer of kind K (--kind list names them) on generated text, or on --text; makes N strings of all scripts,
emoji, combining marks, controls, special-token look-alikes and long runs, or with --characters a string around every
code point; compares ids with and without special
tokens, from tokenizer.json and from compiled tables, and decoded text with and without them. Exits 1 on a difference.
--write leaves the tokenizer and the first 400 strings with their expected results in DIR, as cases_test.cc reads them.
Needs Python 3.11, tokenizers 0.23, sentencepiece, and for the kinds sentencepiece_* Debian's package
python3-sentencepiece.
"""

import argparse
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import unicodedata

import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN3_5 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
           r"|\s+(?!\S)|\s+")
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_level(pre, normalizer=None, post=None, ignore_merges=False):
    def make(text, vocab):
        t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
        if normalizer:
            t.normalizer = normalizer
        t.pre_tokenizer = pre
        t.decoder = decoders.ByteLevel()
        t.train_from_iterator(text, trainers.BpeTrainer(vocab_size=vocab, special_tokens=SPECIAL, show_progress=False,
                                                        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        t.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("lookup", single_word=True, normalized=True),
                      AddedToken("<mask>", lstrip=True, normalized=False), AddedToken("<sep>", rstrip=True, normalized=False)])
        if post:
            t.post_processor = processors.TemplateProcessing(single="<|im_start|> $A", special_tokens=[
                ("<|im_start|>", t.token_to_id("<|im_start|>"))])
        else:
            t.post_processor = processors.ByteLevel(trim_offsets=False)
        return t
    return make


def split_then_bytes(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


FALCON = pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False),
                                  pre_tokenizers.Digits(individual_digits=False),
                                  pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")])
FALCON_H1 = pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.Digits(individual_digits=True),
                                     pre_tokenizers.ByteLevel(add_prefix_space=False)])


def llama2(text, vocab):
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    words = [word for line in text for word in line.split(" ")]
    t.train_from_iterator(words, trainers.BpeTrainer(vocab_size=max(vocab, 600), special_tokens=special, limit_alphabet=300,
                                                    show_progress=False))
    data = json.loads(t.to_str())
    data["added_tokens"] = data["added_tokens"][:3]
    t = Tokenizer.from_str(json.dumps(data))
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return t


def unigram(text, vocab):
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.decoder = decoders.Metaspace()
    t.train_from_iterator(text, trainers.UnigramTrainer(vocab_size=vocab, unk_token="<unk>", show_progress=False,
                                                       special_tokens=["<pad>", "</s>", "<unk>"]))
    t.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", t.token_to_id("</s>"))])
    return t


def word_piece(text, vocab):
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece(cleanup=True)
    t.train_from_iterator(text, trainers.WordPieceTrainer(vocab_size=vocab, show_progress=False, limit_alphabet=200,
                                                         special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    t.post_processor = processors.BertProcessing(("[SEP]", t.token_to_id("[SEP]")), ("[CLS]", t.token_to_id("[CLS]")))
    return t


def word_piece_nfd(text, vocab):
    t = word_piece(text, vocab)
    t.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(True)])
    return t


class Piece:
    """A sentencepiece model with the face of a Tokenizer. Results are those of the library plait runs, which Debian's package
    python3-sentencepiece gives to Debian's Python: versions break ties between equally likely cuts in different ways."""

    ORACLE = """
import json, sentencepiece, sys
model, strings = json.load(sys.stdin)
processor = sentencepiece.SentencePieceProcessor(model_file=model)
ids = [processor.encode(s) for s in strings]
json.dump([sentencepiece.__version__, ids, [processor.decode(i) for i in ids]], sys.stdout)
"""

    def __init__(self, path):
        self.path, self.version = path, None

    def results(self, strings):
        out = subprocess.run(["/usr/bin/python3", "-c", self.ORACLE], input=json.dumps([self.path, strings]), stdout=subprocess.PIPE,
                             check=True, text=True).stdout
        self.version, ids, texts = json.loads(out)
        yield from ((i, i, text, text) for i, text in zip(ids, texts))


def sentence_piece(kind):
    def make(text, vocab):
        prefix = tempfile.mkdtemp() + "/tokenizer"
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(text), model_prefix=prefix, vocab_size=vocab,
                                                 model_type=kind, byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
                                                 character_coverage=0.98, num_threads=1)
        return Piece(prefix + ".model")
    return make


KINDS = {
    "qwen2": byte_level(split_then_bytes(QWEN2), normalizers.NFC()),
    "qwen3_5": byte_level(split_then_bytes(QWEN3_5), normalizers.NFC()),
    "llama3": byte_level(split_then_bytes(LLAMA3), post=True, ignore_merges=True),
    "gpt2": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "falcon": byte_level(FALCON),
    "falcon_h1": byte_level(FALCON_H1, post=True),
    "llama2": llama2,
    "unigram": unigram,
    "word_piece": word_piece,
    "word_piece_nfd": word_piece_nfd,
    "sentencepiece_bpe": sentence_piece("bpe"),
    "sentencepiece_unigram": sentence_piece("unigram"),
}

def assigned(c):
    """In Unicode 14, which is PCRE2 10.42's and Python 3.11's; what is younger is another matter (runtime/text/README.md)."""
    return unicodedata.category(c) not in ("Cn", "Cs")


def alphabets():
    """Lists of characters that belong together: one per block of 128 code points, and some mixed ones."""
    blocks = []
    uniform = [(0x3400, 0xA000, 2048), (0xAC00, 0xD7A0, 1024), (0x17000, 0x18A80, 1024), (0x20000, 0x31380, 4096)]
    starts = [c for c in range(0x80, 0x20000, 128) if not any(first <= c < last for first, last, _ in uniform)]
    for start in [*starts, *(c for first, last, step in uniform for c in range(first, last, step)), 0x2F800, 0xE0000, 0xE0100]:
        block = [c for c in map(chr, range(start, start + 128)) if assigned(c) and unicodedata.category(c) != "Co"]
        if len(block) > 3:
            blocks.append(block)
    emoji = [c for c in map(chr, range(0x1F300, 0x1FB00)) if assigned(c)] + ["\u200d", "\ufe0f", "\U0001f3fd", "👩‍👩‍👧", "🇩🇪"]
    marks = [c for block in blocks for c in block if unicodedata.category(c).startswith("M")]
    spaces = list(" \t\n\r\x0b\x0c\x85\xa0\u1680\u2003\u2028\u2029\u202f\u205f\u3000") + ["\r\n", "  ", "\u200b", "\u180e", "\ufeff"]
    controls = [chr(c) for c in [*range(0x20), *range(0x7F, 0xA0), 0xAD, 0x200E, 0x202A, 0xFFFD, 0xE000, 0x10FFFF]]
    ascii_ = [chr(c) for c in range(0x20, 0x7F)]
    return blocks, [emoji, marks, spaces, controls, ascii_, list("0123456789²½Ⅷ٣"), list("'sStTrReEvVmMlLdD ſKk")]


ALIKE = [*SPECIAL, "<tool>", "lookup", "<mask>", "<sep>", "<s>", "</s>", "<unk>", "[CLS]", "[SEP]", "[UNK]", "<|im_", "|>", "<0x41>",
         "<0xE4>", "▁", "##", "##s", " ' ", " .", " n't", " do not", "Ġ", "<pad>", " lookup ", "lookups", "é", "e\u0301"]


class Strings:
    def __init__(self, seed, words):
        self.random, self.words = random.Random(seed), words
        self.blocks, self.mixed = alphabets()

    def part(self):
        r = self.random
        kind = r.random()
        if kind < 0.3:
            return " ".join(r.choices(self.words, k=r.randint(1, 6)))
        if kind < 0.45:
            return r.choice(ALIKE)
        if kind < 0.5:
            return r.choice(r.choice(r.choice([self.blocks, self.mixed]))) * r.choice([2, 3, 17, 100, 300])
        return "".join(r.choices(r.choice(r.choice([self.blocks, self.mixed])), k=r.randint(1, 12)))

    def next(self):
        r = self.random
        joint = r.choice(["", "", " "])
        return joint.join(self.part() for _ in range(r.choice([0, 1, 1, 2, 3, 5, 8])))


def made_text(seed, vocab):
    """Words with common stems and endings, of several scripts; enough that vocabularies fill."""
    scale = max(1, vocab // 2500)
    r = random.Random(seed)
    blocks, _ = alphabets()
    letters = [[c for c in b if unicodedata.category(c)[0] == "L"] for b in blocks]
    letters = [l for l in letters if len(l) > 20]
    latin = list("etaoinshrdlucmfwypvbgkjqxz")
    stems = ["".join(r.choices(latin, k=r.randint(1, 5))) for _ in range(3000 * scale)]
    stems += ["".join(r.choices(r.choice(letters), k=r.randint(1, 4))) for _ in range(1500 * scale)]
    ends = ["", "", "s", "ing", "ed", "'s", "ly", "tion", "ä", "é", "0", "42", "2024", ".", ",", "!", "?", "\t", "  ", "\n"]
    lines = []
    for _ in range(6000 * scale):
        words = [stems[min(int(r.expovariate(1 / (700 * scale))), len(stems) - 1)] + r.choice(ends) for _ in range(12)]
        lines.append(" ".join(w.capitalize() if r.random() < 0.1 else w for w in words))
    return lines


def showing_cuts(t):
    """The normalizer and pre-tokenizer of t before a model that hides no cut: a token for every byte, ▁ where a piece begins."""
    data = json.loads(t.to_str())
    byte_level = "ByteLevel" in json.dumps(data["pre_tokenizer"])
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet()) if byte_level else [f"<0x{b:02X}>" for b in range(256)]
    model = models.BPE({piece: i for i, piece in enumerate(["<unk>", "▁", *pieces])}, [], unk_token="<unk>", byte_fallback=not byte_level)
    shown = Tokenizer(model)
    if t.normalizer:
        shown.normalizer = t.normalizer
    mark = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    shown.pre_tokenizer = pre_tokenizers.Sequence([t.pre_tokenizer, mark]) if t.pre_tokenizer else mark
    shown.decoder = decoders.ByteLevel() if byte_level else decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return shown


def expected(t, strings):
    if isinstance(t, Piece):
        yield from t.results(strings)
        return
    full = t.encode_batch(strings)
    bare = t.encode_batch(strings, add_special_tokens=False)
    ids = [e.ids for e in full]
    yield from zip(ids, (e.ids for e in bare), t.decode_batch(ids, skip_special_tokens=False), t.decode_batch(ids))


def broken(r, text):
    """Bytes with some lost, changed or put in; most are no UTF-8."""
    data = bytearray(text.encode())
    for _ in range(r.randint(1, 4)):
        at = r.randint(0, len(data))
        data[at:at + r.randint(0, 2)] = bytes(r.choices([0x41, 0x80, 0xBF, 0xC0, 0xC3, 0xE0, 0xE2, 0xED, 0xF0, 0xF4, 0xF5, 0xFF], k=r.randint(0, 2)))
    return bytes(data)


def results(program, path, strings):
    blob = b"".join(struct.pack("<I", len(b)) + b for b in strings)
    out = subprocess.run([program, path], input=blob, stdout=subprocess.PIPE, check=True).stdout
    at = 0

    def field(size):
        nonlocal at
        (n,) = struct.unpack_from("<I", out, at)
        at += 4 + n * size
        return out[at - n * size:at]

    for _ in strings:
        yield tuple([list(struct.unpack(f"<{len(f) // 4}i", f)) for f in (field(4), field(4))] + [field(1), field(1)])


def write(folder, path, strings, wanted):
    folder.mkdir(parents=True, exist_ok=True)
    data = pathlib.Path(path).read_bytes()
    if path.endswith(".json"):
        data = json.dumps(json.loads(data), ensure_ascii=False, separators=(",", ":")).encode()
    (folder / pathlib.Path(path).name).write_bytes(data)
    cases = [dict(text=s, ids=w[0], bare=w[1], decoded=w[2], plain=w[3]) for s, w in zip(strings, wanted) if len(s) < 120][:60 if path.endswith(".model") else 150]
    (folder / "cases.json").write_text("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    args = argparse.ArgumentParser()
    args.add_argument("--kind", required=True, choices=[*KINDS, "list"])
    args.add_argument("--n", type=int, default=2000)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--vocab", type=int, default=2000)
    args.add_argument("--text", nargs="*", default=[])
    args.add_argument("--program", default=root / "build/release/tests/text/text_encode")
    args.add_argument("--write", type=pathlib.Path)
    args.add_argument("--characters", action="store_true", help="every code point of Unicode instead, among letters and digits")
    args.add_argument("--cuts", action="store_true", help="a model that shows every cut of the pre-tokenizer instead of the trained one")
    args.add_argument("--broken", action="store_true", help="broken UTF-8; wanted is what its decode(errors='replace') gives")
    args = args.parse_args()
    if args.kind == "list":
        return print(*KINDS, sep="\n")
    if unicodedata.unidata_version != "14.0.0":
        sys.exit(f"fuzz.py wants the Unicode 14.0.0 of Python 3.11; this Python has {unicodedata.unidata_version}")
    text = made_text(args.seed, args.vocab)
    for name in args.text:
        text += pathlib.Path(name).read_text().splitlines()
    t = KINDS[args.kind](text, args.vocab)
    if args.cuts and not isinstance(t, Piece):
        t = showing_cuts(t)
    path = t.path if isinstance(t, Piece) else tempfile.mkdtemp() + "/tokenizer.json"
    if not isinstance(t, Piece):
        t.save(path)
    size = args.vocab if isinstance(t, Piece) else t.get_vocab_size()
    maker = Strings(args.seed, [w for line in text[:500] for w in line.split(" ")])
    wrong = younger = done = 0
    every = [f"a{c}b 1{c}2{c}{c}" for c in map(chr, range(1, 0x110000)) if not "\ud800" <= c <= "\udfff"] if args.characters else []
    total = len(every) or args.n
    while done < total and wrong < 5:
        strings = every[done:done + 5000] or [maker.next() for _ in range(min(5000, total - done))]
        sent = [broken(maker.random, s) if args.broken else s.encode() for s in strings]
        strings = [b.decode(errors="replace") for b in sent]
        wanted = list(expected(t, strings))
        for s, want, got in zip(strings, wanted, results(args.program, path, sent)):
            got = got[:2] + tuple(g.decode() for g in got[2:])
            if tuple(want) == got:
                continue
            if not all(map(assigned, s)):
                younger += 1
                continue
            if (wrong := wrong + 1) <= 5:
                print(f"{args.kind}: {s!r}\n  wanted {want!r}\n  got    {got!r}")
        if args.write and done == 0:
            write(args.write, path, strings[:400], wanted)
        done += len(strings)
    version = f"sentencepiece {t.version}" if isinstance(t, Piece) else f"tokenizers {tokenizers.__version__}"
    print(f"{args.kind}: {done} strings, {wrong} differences, {younger} more with characters younger than Unicode 14 "
          f"({version}, seed {args.seed}, vocabulary {size}, {path})")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
