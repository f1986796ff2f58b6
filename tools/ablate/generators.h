// Made-up items that ask for something that stands earlier in them: how much of its past can a model still
// use, how far back, among how much else.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/base/view.h"
#include "runtime/graph/config.h"
#include "runtime/text/tokenizer.h"
#include "tools/ablate/document.h"

namespace plait::ablate {

// What is asked for. Every kind copies: the tokens to predict stand `distance` tokens earlier, too.
struct Generator {
  enum class Kind {
    recall,     // pairs of key and value, later each key once more: multi-query associative recall (Arora
                // et al., 2023)
    needle,     // one pair at a depth of unrelated text, its key at the end
    induction,  // a random sequence twice, without a mark between (Olsson et al., 2022)
    copying,    // a random sequence, a mark, the sequence again
  };
  enum class Symbols {
    text,  // letters, digits and words, through the tokenizer
    ids,   // random token ids, whatever they mean
  };
  Kind kind = Kind::recall;
  Symbols symbols = Symbols::text;
  // In characters (text) or tokens (ids). recall, needle: of the whole, at most; induction, copying: of the
  // sequence.
  std::vector<Index> lengths;
  std::vector<Index> pairs;    // recall
  std::vector<double> depths;  // needle: 0 = at the beginning, 1 = right before the question
  Index items = 32;            // of each combination of factors
  std::uint64_t seed = 0;
};

const char* name_of(Generator::Kind kind);
const char* name_of(Generator::Symbols symbols);

// {"generator": "recall", "symbols": "text" or "ids", "length": 128 or [..], "pairs": .., "depth": ..,
// "items": 32, "seed": 0}. Leaves the section unfinished. Throws Error naming the key.
Generator parse_generator(Section& section);
Json to_json(const Generator& generator);

struct ProbeQuery {
  Index begin, end;    // tokens[begin .. end) are to be predicted
  Index distance;      // tokens back from `begin` to where the answer begins
  Index position_bin;  // recall: log2 of the distance, downwards; needle: depth in per cent; induction,
                       // copying: quarter of the sequence, 0 to 3
};

struct Probe {
  std::vector<Token> tokens;
  std::vector<ProbeQuery> queries;  // ascending, disjoint; begin >= 1
  Index length = 0;                 // the factors
  std::optional<Index> pairs;
  std::optional<double> depth;
};

// All items of a generator for one vocabulary: by length, then pairs or depth, then number. An item depends
// on the seed, its own factors and its number, not on which others there are.
class Probes {
 public:
  // tokenizer: null is allowed for ids. vocab: of the model. Throws Error when a length has no room, when the
  // vocabulary is too small, or when text is asked for without a tokenizer.
  Probes(Generator generator, const Tokenizer* tokenizer, Index vocab);

  Index count() const;
  Probe operator[](Index i) const;  // throws Error if the tokenizer joins an answer with what surrounds it

 private:
  class Script;
  struct Factors {
    Index length, pairs;
    double depth;
  };
  Factors factors(Index combination) const;
  Index combinations() const;
  void check_room(const Factors& factors) const;
  void recall(Script& script, const Factors& factors) const;
  void needle(Script& script, const Factors& factors) const;
  void needle_of_words(Script& script, const Factors& factors) const;
  void repeat(Script& script, const Factors& factors) const;

  Generator generator_;
  const Tokenizer* tokenizer_;
  std::vector<Token> begin_;  // what every item begins with: the tokenizer's own
  std::vector<Token> ids_;    // that may be drawn
};

}  // namespace plait::ablate
