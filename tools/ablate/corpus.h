// The texts of a study: tokens, the documents they belong to, and the windows they are scored in.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/base/view.h"
#include "runtime/text/tokenizer.h"

namespace plait::ablate {

// A text as one sequence of tokens per independent source: one for a plain text, one per record of a JSONL
// file.
struct Text {
  std::string name, file, sha256;  // name: the file's, without folder; sha256: of the file's bytes
  std::string documents;           // the rule: line, blank, heading, jsonl:FIELD
  struct Sequence {
    std::vector<Token> tokens;
    std::vector<Index> document;  // [tokens]: which document each belongs to, counted through the whole text
    std::vector<Index> bytes;     // [tokens]: how many bytes of the text each stands for
  };
  std::vector<Sequence> sequences;
  Index document_count = 0;
  Index token_count() const;
};

// Splits a text by the rule and encodes each document alone; special tokens of the tokenizer's post-processor
// go before each sequence. Throws Error naming the file (empty, fewer than two tokens, a line that is no
// record).
Text read_text(const std::string& file, const std::string& documents, const Tokenizer& tokenizer,
               Index vocab);

// Where documents begin in `text`, the first at 0. line: at every line that is not empty; blank: after every
// run of empty lines; heading: at every line of the form " = Title = " (WikiText) or "# Title" (Markdown).
std::vector<std::size_t> document_starts(const std::string& text, const std::string& rule);

// Consecutive tokens scored with a fresh state: a window of a sequence, or the whole of it.
struct Unit {
  int text;
  Index context;  // window length; 0 = the sequence in one stream
  int sequence;
  Index begin, end;           // tokens of the sequence
  std::vector<Index> scored;  // ascending offsets into it: the token after each is scored
};

// All windows of `context` tokens (0: whole sequences) of a text, the last of a sequence shorter; those with
// fewer than two tokens are left out. `share` of the positions are scored, drawn by (seed, text, position):
// the same positions for every context length.
std::vector<Unit> units_of(std::span<const Text> texts, int text, Index context, double share,
                           std::uint64_t seed);

}  // namespace plait::ablate
