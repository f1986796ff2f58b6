#include "runtime/text/byte_pair.h"

#include <algorithm>

#include "runtime/base/error.h"
#include "runtime/text/byte_fallback.h"
#include "runtime/text/unicode.h"

namespace plait {
namespace {

constexpr char32_t kTabulated = 0x3400;

std::uint64_t pair_of(Token left, Token right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
         static_cast<std::uint32_t>(right);
}

std::size_t slot_of(std::uint64_t pair, std::size_t mask) {
  const std::uint64_t mixed = pair * 0x9e3779b97f4a7c15ull;
  return static_cast<std::size_t>(mixed >> 32 ^ mixed) & mask;
}

}  // namespace

BytePair::BytePair(Vocabulary vocabulary, const std::vector<Merge>& merges, BytePairOptions options)
    : vocabulary_(std::move(vocabulary)), options_(std::move(options)) {
  std::size_t size = 16;
  while (size < 2 * merges.size()) size *= 2;
  rules_.assign(size, {0, -1, 0});
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const std::uint64_t pair = pair_of(merges[rank].left, merges[rank].right);
    std::size_t slot = slot_of(pair, size - 1);
    while (rules_[slot].rank >= 0 && rules_[slot].pair != pair) slot = (slot + 1) & (size - 1);
    rules_[slot] = {pair, static_cast<std::int32_t>(rank), merges[rank].merged};
  }
  characters_.assign(kTabulated, -1);
  for (char32_t c = 0; c < kTabulated; ++c) {
    std::string text;
    unicode::append(text, c);
    characters_[c] = vocabulary_.find(text).value_or(-1);
  }
  bytes_ = byte_fallback_tokens(vocabulary_);
}

const BytePair::Rule* BytePair::rule(Token left, Token right) const {
  const std::uint64_t pair = pair_of(left, right);
  const std::size_t mask = rules_.size() - 1;
  for (std::size_t slot = slot_of(pair, mask); rules_[slot].rank >= 0; slot = (slot + 1) & mask)
    if (rules_[slot].pair == pair) return &rules_[slot];
  return nullptr;
}

std::optional<Token> BytePair::character(std::string_view piece, std::size_t begin, std::size_t end) const {
  const bool prefixed = begin > 0 && !options_.prefix.empty();
  const bool suffixed = end == piece.size() && !options_.suffix.empty();
  const std::string_view text = piece.substr(begin, end - begin);
  if (prefixed || suffixed)
    return vocabulary_.find(cat(prefixed ? options_.prefix : "", text, suffixed ? options_.suffix : ""));
  std::size_t at = 0;
  const char32_t c = unicode::next(text, at);
  if (c >= kTabulated) return vocabulary_.find(text);
  return characters_[c] < 0 ? std::nullopt : std::optional(characters_[c]);
}

// Nothing happens unless every byte has a token.
bool BytePair::spell_bytes(std::string_view text, std::vector<Symbol>& symbols) const {
  for (const char byte : text)
    if (bytes_[static_cast<unsigned char>(byte)] < 0) return false;
  for (const char byte : text) symbols.push_back({bytes_[static_cast<unsigned char>(byte)], -1, -1, true});
  return true;
}

void BytePair::split(std::string_view piece, std::vector<Symbol>& symbols) const {
  bool unknown = false;  // one is waiting: those that follow it may join it
  const auto add = [&](Token token) { symbols.push_back({token, -1, -1, true}); };
  for (std::size_t at = 0; at < piece.size();) {
    const std::size_t begin = at;
    unicode::next(piece, at);
    if (const auto token = character(piece, begin, at)) {
      if (unknown) add(*options_.unknown);
      unknown = false;
      add(*token);
      continue;
    }
    if (options_.byte_fallback) {
      const std::string prefix = begin > 0 ? options_.prefix : "";
      const std::string suffix = at == piece.size() ? options_.suffix : "";
      if (spell_bytes(cat(prefix, piece.substr(begin, at - begin), suffix), symbols)) continue;
    }
    if (!options_.unknown) continue;  // such a character is left out
    if (unknown && !options_.fuse_unknown) add(*options_.unknown);
    unknown = true;
  }
  if (unknown) add(*options_.unknown);
  const auto count = static_cast<std::int32_t>(symbols.size());
  for (std::int32_t i = 0; i < count; ++i) {
    symbols[static_cast<std::size_t>(i)].previous = i - 1;
    symbols[static_cast<std::size_t>(i)].next = i + 1 < count ? i + 1 : -1;
  }
}

namespace {

// The lowest rank first, then the leftmost; a heap keeps the greatest in front.
constexpr auto kLater = [](const auto& a, const auto& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
};

}  // namespace

void BytePair::push(Workspace& workspace, std::int32_t left, std::int32_t right) const {
  if (left < 0 || right < 0) return;
  const auto& symbols = workspace.symbols;
  const Rule* found =
      rule(symbols[static_cast<std::size_t>(left)].token, symbols[static_cast<std::size_t>(right)].token);
  if (!found) return;
  workspace.queue.push_back({found->rank, left, found->merged});
  std::push_heap(workspace.queue.begin(), workspace.queue.end(), kLater);
}

void BytePair::merge(Workspace& workspace) const {
  auto& [symbols, queue] = workspace;
  for (std::int32_t i = 0; i + 1 < static_cast<std::int32_t>(symbols.size()); ++i) push(workspace, i, i + 1);
  while (!queue.empty()) {
    const Candidate best = queue.front();
    std::pop_heap(queue.begin(), queue.end(), kLater);
    queue.pop_back();
    Symbol& left = symbols[static_cast<std::size_t>(best.at)];
    if (!left.live || left.next < 0) continue;
    Symbol& right = symbols[static_cast<std::size_t>(left.next)];
    const Rule* found = rule(left.token, right.token);
    if (!found || found->merged != best.merged) continue;  // the pair has changed since
    left.token = best.merged;
    right.live = false;
    left.next = right.next;
    if (right.next >= 0) symbols[static_cast<std::size_t>(right.next)].previous = best.at;
    push(workspace, left.previous, best.at);
    push(workspace, best.at, left.next);
  }
}

void BytePair::encode(std::string_view piece, std::vector<Token>& out) const {
  if (options_.ignore_merges)
    if (const auto whole = vocabulary_.find(piece)) return out.push_back(*whole);
  thread_local Workspace workspace;
  workspace.symbols.clear();
  split(piece, workspace.symbols);
  merge(workspace);
  for (const Symbol& symbol : workspace.symbols)
    if (symbol.live) out.push_back(symbol.token);
}

}  // namespace plait
