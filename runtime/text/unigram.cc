#include "runtime/text/unigram.h"

#include <algorithm>
#include <limits>

#include "runtime/base/error.h"
#include "runtime/text/byte_fallback.h"
#include "runtime/text/regex.h"
#include "runtime/text/unicode.h"

namespace plait {
namespace {

constexpr double kUnknownPenalty = 10;  // below the least likely token, as sentencepiece has it

// The best way to cut the text before a place.
struct Best {
  double score = 0;
  std::int32_t from = -1;  // where its last token begins; -1: not reached
  Token token = 0;
};

}  // namespace

Unigram::Unigram(Vocabulary vocabulary, std::vector<double> scores, std::optional<Token> unknown,
                 Fallback fallback)
    : vocabulary_(std::move(vocabulary)),
      scores_(std::move(scores)),
      unknown_(unknown),
      fallback_(fallback),
      unknown_score_(std::numeric_limits<double>::infinity()),
      trie_(trie_of(vocabulary_)),
      bytes_(byte_fallback_tokens(vocabulary_)) {
  for (const double score : scores_) unknown_score_ = std::min(unknown_score_, score);
  unknown_score_ -= kUnknownPenalty;
}

void Unigram::encode(std::string_view piece, std::vector<Token>& out) const {
  thread_local std::vector<Best> best;
  best.assign(piece.size() + 1, {});
  const auto reach = [&](std::size_t from, std::size_t to, double score, Token token) {
    Best& target = best[to];
    score += best[from].score;
    if (target.from < 0 || score > target.score) target = {score, static_cast<std::int32_t>(from), token};
  };
  for (std::size_t at = 0; at < piece.size();) {
    std::size_t after = at;
    unicode::next(piece, after);
    bool single = false;
    Trie::Node node = Trie::kRoot;
    for (std::size_t end = at; end < piece.size();) {
      node = trie_.step(node, static_cast<unsigned char>(piece[end++]));
      if (node == Trie::kNone) break;
      if (const Token token = trie_.token(node); token >= 0) {
        reach(at, end, scores_[static_cast<std::size_t>(token)], token);
        single |= end == after;
      }
    }
    if (!single) {
      if (!unknown_) fail("a character of the text has no token, and the tokenizer has no unknown token");
      reach(at, after, unknown_score_, *unknown_);
    }
    at = after;
  }

  // Back from the end; neighbouring unknown stretches are one.
  thread_local std::vector<Range> cuts;
  cuts.clear();
  bool joins = false;
  for (std::size_t end = piece.size(); end > 0;) {
    const Best& last = best[end];
    const auto begin = static_cast<std::size_t>(last.from);
    const bool unknown = unknown_ && last.token == *unknown_;
    if (unknown && joins)
      cuts.back().begin = begin;
    else
      cuts.push_back({begin, end});
    joins = unknown;
    end = begin;
  }
  for (auto cut = cuts.rbegin(); cut != cuts.rend(); ++cut)
    emit(piece.substr(cut->begin, cut->end - cut->begin), out);
}

void Unigram::emit(std::string_view text, std::vector<Token>& out) const {
  if (const auto token = vocabulary_.find(text)) return out.push_back(*token);
  const auto token_of = [&](char byte) { return bytes_[static_cast<unsigned char>(byte)]; };
  const bool spelled = fallback_ == Fallback::bytes &&
                       std::all_of(text.begin(), text.end(), [&](char byte) { return token_of(byte) >= 0; });
  if (!spelled) return out.push_back(*unknown_);
  for (const char byte : text) out.push_back(token_of(byte));
}

}  // namespace plait
