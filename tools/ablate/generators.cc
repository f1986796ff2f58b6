#include "tools/ablate/generators.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <functional>
#include <numeric>
#include <set>

#include "runtime/base/digest.h"
#include "runtime/base/random.h"
#include "tools/ablate/open_encoder.h"

namespace plait::ablate {
namespace {

using Kind = Generator::Kind;
using Symbols = Generator::Symbols;

constexpr std::array<const char*, 4> kKinds = {"recall", "needle", "induction", "copying"};
constexpr std::array<const char*, 2> kSymbols = {"text", "ids"};
constexpr Index kLetters = 26;
constexpr Index kMostOfAny = 1 << 24;  // tokens, pairs, items
constexpr Index kQuarters = 4;
// A pair and what fills its place elsewhere: "ab=12;" and "abcde;", or two ids.
constexpr Index kTextUnit = 6, kIdUnit = 2;
constexpr Index kLeastNeedleText = 128;  // a needle, a question and a sentence or more
constexpr Index kLeastRepeat = 2 * kQuarters;

std::size_t index(Index i) { return static_cast<std::size_t>(i); }

// Draws that depend on the seed and a name.
class ItemDraws {
 public:
  ItemDraws(std::uint64_t seed, const std::string& name) : seed_(seed) {
    const std::string digest = sha256(name);
    std::from_chars(digest.data(), digest.data() + 16, stream_, 16);
  }
  Index below(Index n) {
    return static_cast<Index>(uniform_draw(seed_, stream_, counter_++) * static_cast<double>(n));
  }
  // `count` different ones of 0 .. n - 1, in the order drawn.
  std::vector<Index> distinct(Index n, Index count) {
    std::vector<Index> drawn;
    std::set<Index> seen;
    while (static_cast<Index>(drawn.size()) < count) {
      const Index i = below(n);
      if (seen.insert(i).second) drawn.push_back(i);
    }
    return drawn;
  }
  std::vector<Index> permutation(Index n) {
    std::vector<Index> all(index(n));
    std::iota(all.begin(), all.end(), 0);
    for (Index i = n; i > 1; --i) std::swap(all[index(i - 1)], all[index(below(i))]);
    return all;
  }
  template <std::size_t n>
  std::string one_of(const std::array<const char*, n>& words) {
    return words[index(below(n))];
  }

 private:
  std::uint64_t seed_, stream_ = 0, counter_ = 0;
};

std::string letters(ItemDraws& draws, Index count) {
  std::string word;
  for (Index i = 0; i < count; ++i) word += static_cast<char>('a' + draws.below(kLetters));
  return word;
}

std::string digits(ItemDraws& draws, Index count) {
  std::string number(1, static_cast<char>('1' + draws.below(9)));
  while (static_cast<Index>(number.size()) < count) number += static_cast<char>('0' + draws.below(10));
  return number;
}

std::string sentence(ItemDraws& draws) {
  constexpr std::array kAdjectives = {"red", "quiet", "old", "small", "warm", "heavy", "bright", "narrow"};
  constexpr std::array kNouns = {"fox", "river", "baker", "stone", "garden", "window", "sailor", "bell"};
  constexpr std::array kVerbs = {"sees",  "follows", "forgets", "keeps",
                                 "finds", "carries", "leaves",  "hears"};
  std::string text = "The ";
  text += draws.one_of(kAdjectives) + " ";
  text += draws.one_of(kNouns) + " ";
  text += draws.one_of(kVerbs) + " the ";
  text += draws.one_of(kAdjectives) + " ";
  return text + draws.one_of(kNouns) + ". ";
}

std::string name(ItemDraws& draws) {
  constexpr std::string_view kConsonants = "bdfklmnprstv", kVowels = "aeiou";
  std::string word;
  for (int syllable = 0; syllable < 3; ++syllable) {
    word += kConsonants[index(draws.below(std::ssize(kConsonants)))];
    word += kVowels[index(draws.below(std::ssize(kVowels)))];
  }
  word[0] = static_cast<char>(word[0] - 'a' + 'A');
  return word;
}

// The place of a name in the list of all.
template <std::size_t n>
std::size_t chosen(const Value& value, const std::array<const char*, n>& names) {
  const std::string name = value.one_of({names.begin(), names.end()});
  return static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin());
}

}  // namespace

const char* name_of(Kind kind) { return kKinds[static_cast<std::size_t>(kind)]; }
const char* name_of(Symbols symbols) { return kSymbols[static_cast<std::size_t>(symbols)]; }

Generator parse_generator(Section& section) {
  Generator generator;
  generator.kind = static_cast<Kind>(chosen(section.get("generator"), kKinds));
  section.maybe("symbols", [&](const Value& value) {
    generator.symbols = static_cast<Symbols>(chosen(value, kSymbols));
  });
  const auto integers = [&](const char* key) {
    std::vector<Index> all;
    for (const Value& value : section.get(key).items_or_single()) all.push_back(value.integer(1, kMostOfAny));
    return all;
  };
  generator.lengths = integers("length");
  if (generator.kind == Kind::recall) generator.pairs = integers("pairs");
  if (generator.kind == Kind::needle)
    for (const Value& value : section.get("depth").items_or_single())
      generator.depths.push_back(value.number(0, 1));
  section.maybe("items", [&](const Value& value) { generator.items = value.integer(1, kMostOfAny); });
  section.maybe("seed", [&](const Value& value) {
    generator.seed = static_cast<std::uint64_t>(value.integer(0, INT64_MAX));
  });
  return generator;
}

Json to_json(const Generator& generator) {
  Json json = {{"generator", name_of(generator.kind)},
               {"symbols", name_of(generator.symbols)},
               {"length", generator.lengths},
               {"items", generator.items},
               {"seed", generator.seed}};
  if (generator.kind == Kind::recall) json["pairs"] = generator.pairs;
  if (generator.kind == Kind::needle) json["depth"] = generator.depths;
  return json;
}

// An item as it grows: text or ids, and where the answers stand. Places are characters or ids until it is
// finished.
class Probes::Script {
 public:
  Script(const Probes& all, ItemDraws own) : draws(std::move(own)), all_(all) {}

  struct Piece {  // one of both
    std::string text = {};
    std::vector<Token> ids = {};
  };
  static constexpr Index kBinOfDistance = -1;

  bool is_text() const { return all_.generator_.symbols == Symbols::text; }
  Index at() const { return is_text() ? std::ssize(text_) : std::ssize(ids_); }
  void add(const Piece& piece) {
    text_ += piece.text;
    ids_.insert(ids_.end(), piece.ids.begin(), piece.ids.end());
  }
  // As add; it is to be predicted, and stood at `source` before.
  void ask(const Piece& piece, Index source, Index bin) {
    const Index begin = at();
    add(piece);
    asked_.push_back({begin, at(), source, bin});
  }
  // Different ids.
  std::vector<Token> draw_ids(Index count) {
    std::vector<Token> ids;
    for (const Index i : draws.distinct(std::ssize(all_.ids_), count)) ids.push_back(all_.ids_[index(i)]);
    return ids;
  }
  // Any id that is not among `others`.
  Token draw_id_but(std::span<const Token> others) {
    for (;;) {
      const Token id = all_.ids_[index(draws.below(std::ssize(all_.ids_)))];
      if (std::find(others.begin(), others.end(), id) == others.end()) return id;
    }
  }
  Probe finish() const;

  ItemDraws draws;

 private:
  struct Asked {
    Index begin, end, source, bin;
  };
  Probe with_places(std::vector<Token> tokens, const std::function<Index(Index)>& place) const;

  const Probes& all_;
  std::string text_;
  std::vector<Token> ids_;
  std::vector<Asked> asked_;
};

Probe Probes::Script::with_places(std::vector<Token> tokens, const std::function<Index(Index)>& place) const {
  Probe probe;
  Index end = 1;  // nothing predicts the first token
  for (const Asked& asked : asked_) {
    ProbeQuery query{place(asked.begin), place(asked.end), 0, asked.bin};
    query.distance = query.begin - place(asked.source);
    if (query.begin < end || query.end <= query.begin || query.distance < 1)
      fail("the generator '", name_of(all_.generator_.kind),
           "': the tokenizer joins the answer at character ", asked.begin,
           " with what surrounds it; \"symbols\": \"ids\" does without text");
    end = query.end;
    if (asked.bin == kBinOfDistance)
      query.position_bin = std::bit_width(static_cast<std::uint64_t>(query.distance)) - 1;
    probe.queries.push_back(query);
  }
  probe.tokens = std::move(tokens);
  return probe;
}

Probe Probes::Script::finish() const {
  if (!is_text()) {
    std::vector<Token> tokens = all_.begin_;
    tokens.insert(tokens.end(), ids_.begin(), ids_.end());
    return with_places(std::move(tokens), [&](Index at) { return std::ssize(all_.begin_) + at; });
  }
  const OpenEncoder encoder(*all_.tokenizer_);
  const std::vector<Token> whole = encoder.encode(text_);
  return with_places(whole, [&](Index at) {
    return static_cast<Index>(
        shared_length(encoder.encode(std::string_view(text_).substr(0, index(at))), whole));
  });
}

Probes::Probes(Generator generator, const Tokenizer* tokenizer, Index vocab)
    : generator_(std::move(generator)), tokenizer_(tokenizer) {
  if (!tokenizer && generator_.symbols == Symbols::text)
    fail("the generator '", name_of(generator_.kind),
         "' makes text, and the model has no tokenizer; \"symbols\": \"ids\" does without");
  std::set<Token> special;
  if (tokenizer) {
    begin_ = OpenEncoder(*tokenizer).front();
    const SpecialTokens named = tokenizer->special_tokens();
    special.insert(begin_.begin(), begin_.end());
    special.insert(named.eos.begin(), named.eos.end());
    if (named.bos) special.insert(*named.bos);
    vocab = std::min(vocab, tokenizer->vocab());
  }
  for (Token id = 0; id < vocab; ++id)
    if (!special.contains(id)) ids_.push_back(id);
  for (Index c = 0; c < combinations(); ++c) check_room(factors(c));
}

void Probes::check_room(const Factors& factors) const {
  const bool text = generator_.symbols == Symbols::text;
  const auto need = [&](const char* what, Index have, Index least) {
    if (have < least)
      fail("the generator '", name_of(generator_.kind), "' needs ", what, " of ", least, " or more, not ",
           have);
  };
  switch (generator_.kind) {
    case Kind::recall:
      need("a length", factors.length, 2 * factors.pairs * (text ? kTextUnit : kIdUnit));
      if (text)
        need("a number of keys", kLetters * kLetters, factors.pairs);
      else
        need("a vocabulary", std::ssize(ids_), 4 * factors.pairs);
      break;
    case Kind::needle:
      need("a length", factors.length, text ? kLeastNeedleText : 3 * kIdUnit);
      need("a vocabulary", std::ssize(ids_), 4);
      break;
    case Kind::induction:
    case Kind::copying:
      need("a length", factors.length, kLeastRepeat);
      need("a vocabulary", std::ssize(ids_), 3);
  }
}

Index Probes::combinations() const {
  const auto own = [](const auto& values) { return std::max<Index>(1, std::ssize(values)); };
  return std::ssize(generator_.lengths) * own(generator_.pairs) * own(generator_.depths);
}

Index Probes::count() const { return combinations() * generator_.items; }

Probes::Factors Probes::factors(Index combination) const {
  const auto& [kind, symbols, lengths, pairs, depths, items, seed] = generator_;
  const Index inner = combinations() / std::ssize(lengths), i = combination % inner;
  return {lengths[index(combination / inner)], pairs.empty() ? 0 : pairs[index(i)],
          depths.empty() ? 0 : depths[index(i)]};
}

Probe Probes::operator[](Index i) const {
  const Factors own = factors(i / generator_.items);
  Script script(*this, ItemDraws(generator_.seed,
                                 cat(name_of(generator_.kind), "/", name_of(generator_.symbols), "/",
                                     own.length, "/", own.pairs, "/", own.depth, "/", i % generator_.items)));
  switch (generator_.kind) {
    case Kind::recall:
      recall(script, own);
      break;
    case Kind::needle:
      script.is_text() ? needle_of_words(script, own) : needle(script, own);
      break;
    case Kind::induction:
    case Kind::copying:
      repeat(script, own);
  }
  Probe probe = script.finish();
  probe.length = own.length;
  if (generator_.kind == Kind::recall) probe.pairs = own.pairs;
  if (generator_.kind == Kind::needle) probe.depth = own.depth;
  return probe;
}

// All pairs first; then every key again, once, in another order, at places drawn from the rest.
void Probes::recall(Script& script, const Factors& factors) const {
  const Index pairs = factors.pairs, unit = script.is_text() ? kTextUnit : kIdUnit;
  std::vector<Script::Piece> keys, values;
  std::vector<Token> key_ids;
  if (script.is_text()) {
    for (const Index key : script.draws.distinct(kLetters * kLetters, pairs)) {
      keys.push_back(
          {{static_cast<char>('a' + key / kLetters), static_cast<char>('a' + key % kLetters), '='}});
      values.push_back({digits(script.draws, 2)});
    }
  } else {
    const std::vector<Token> ids = script.draw_ids(2 * pairs);
    key_ids.assign(ids.begin(), ids.begin() + pairs);
    for (Index p = 0; p < pairs; ++p) {
      keys.push_back({{}, {ids[index(p)]}});
      values.push_back({{}, {ids[index(pairs + p)]}});
    }
  }
  const Script::Piece end = script.is_text() ? Script::Piece{";"} : Script::Piece{};
  std::vector<Index> sources;
  for (Index p = 0; p < pairs; ++p) {
    script.add(keys[index(p)]);
    sources.push_back(script.at());
    script.add(values[index(p)]);
    script.add(end);
  }
  std::vector<Index> places = script.draws.permutation(factors.length / unit - pairs);
  places.resize(index(pairs));
  std::sort(places.begin(), places.end());
  const std::vector<Index> order = script.draws.permutation(pairs);
  Index place = 0;
  for (Index q = 0; q < pairs; ++q, ++place) {
    for (; place < places[index(q)]; ++place)
      script.add(script.is_text()
                     ? Script::Piece{letters(script.draws, kTextUnit - 1) + ";"}
                     : Script::Piece{{}, {script.draw_id_but(key_ids), script.draw_id_but(key_ids)}});
    const std::size_t asked = index(order[index(q)]);
    script.add(keys[asked]);
    script.ask(values[asked], sources[asked], Script::kBinOfDistance);
    script.add(end);
  }
}

void Probes::needle(Script& script, const Factors& factors) const {
  const std::vector<Token> pair = script.draw_ids(2);
  const Index fillers = factors.length / kIdUnit - 2;
  const auto before = static_cast<Index>(std::lround(factors.depth * static_cast<double>(fillers)));
  const auto fill = [&](Index units) {
    for (Index i = 0; i < kIdUnit * units; ++i) script.add({{}, {script.draw_id_but(pair)}});
  };
  fill(before);
  const Index source = script.at() + 1;
  script.add({{}, pair});
  fill(fillers - before);
  script.add({{}, {pair[0]}});
  script.ask({{}, {pair[1]}}, source, std::lround(100 * factors.depth));
}

void Probes::needle_of_words(Script& script, const Factors& factors) const {
  const std::string statement = "The code of " + name(script.draws) + " is",
                    code = " " + digits(script.draws, 5);
  const std::string needle = statement + code + ". ";
  const Index room = factors.length - std::ssize(needle) - std::ssize(statement + code);
  std::vector<std::string> sentences;
  Index total = 0;
  for (std::string next = sentence(script.draws); total + std::ssize(next) <= room;
       next = sentence(script.draws)) {
    total += std::ssize(next);
    sentences.push_back(std::move(next));
  }
  std::size_t i = 0;
  for (;
       i < sentences.size() && static_cast<double>(script.at()) < factors.depth * static_cast<double>(total);
       ++i)
    script.add({sentences[i]});
  const Index source = script.at() + std::ssize(statement);
  script.add({needle});
  for (; i < sentences.size(); ++i) script.add({sentences[i]});
  script.add({statement});
  script.ask({code}, source, std::lround(100 * factors.depth));
}

// Of a repetition without a mark the first symbol is a surprise: it is given.
void Probes::repeat(Script& script, const Factors& factors) const {
  constexpr std::string_view kSymbolsOfText = "abcdefghijklmnopqrstuvwxyz0123456789";
  const Index n = factors.length;
  const bool marked = generator_.kind == Kind::copying;
  Script::Piece mark;
  if (script.is_text())
    mark.text = "\n";
  else
    mark.ids = script.draw_ids(1);
  Script::Piece sequence;
  for (Index i = 0; i < n; ++i)
    if (script.is_text())
      sequence.text += kSymbolsOfText[index(script.draws.below(std::ssize(kSymbolsOfText)))];
    else
      sequence.ids.push_back(script.draw_id_but(mark.ids));
  const auto part = [&](Index from, Index to) {
    return script.is_text() ? Script::Piece{sequence.text.substr(index(from), index(to - from))}
                            : Script::Piece{{}, {sequence.ids.begin() + from, sequence.ids.begin() + to}};
  };
  const Index source = script.at();
  script.add(sequence);
  script.add(marked ? mark : part(0, 1));
  for (Index quarter = 0; quarter < kQuarters; ++quarter) {
    const Index from = quarter == 0 && !marked ? 1 : n * quarter / kQuarters;
    script.ask(part(from, n * (quarter + 1) / kQuarters), source + from, quarter);
  }
}

}  // namespace plait::ablate
