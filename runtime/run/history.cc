#include "runtime/run/history.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "runtime/base/digest.h"

namespace plait {

namespace {

// Of what `digest` stands for and the whole blocks of `tokens` behind it.
std::string digest_after(std::string digest, std::span<const Token> tokens) {
  constexpr auto kStep = static_cast<std::size_t>(History::kBlock);
  assert(tokens.size() % kStep == 0);
  for (; !tokens.empty(); tokens = tokens.subspan(kStep)) {
    Digest next;
    next.add(digest);
    next.add(tokens.data(), kStep * sizeof(Token));
    digest = next.hex();
  }
  return digest;
}

}  // namespace

History::History(Index begin, std::string digest, std::vector<Token> tokens)
    : begin_(begin), digest_(std::move(digest)), tokens_(std::move(tokens)) {
  assert(begin_ % kBlock == 0);
}

std::span<const Token> History::since(Index position) const {
  assert(begin_ <= position && position <= end());
  return std::span(tokens_).subspan(static_cast<std::size_t>(position - begin_));
}

void History::append(std::span<const Token> tokens) {
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

void History::cut(Index end) {
  assert(begin_ <= end && end <= this->end());
  tokens_.resize(static_cast<std::size_t>(end - begin_));
}

void History::forget_before(Index position) {
  const Index begin = kept_from(std::min(position, end()));
  if (begin <= begin_) return;
  digest_ = digest_before(begin);
  tokens_.erase(tokens_.begin(), tokens_.begin() + (begin - begin_));
  begin_ = begin;
}

std::string History::digest_before(Index position) const {
  return digest_after(digest_, std::span(tokens_).first(static_cast<std::size_t>(position - begin_)));
}

Index History::shared(std::span<const Token> tokens) const {
  if (static_cast<Index>(tokens.size()) < begin_) return 0;
  const auto head = tokens.first(static_cast<std::size_t>(begin_)), tail = tokens.subspan(head.size());
  if (digest_after("", head) != digest_) return 0;
  return begin_ +
         (std::mismatch(tokens_.begin(), tokens_.end(), tail.begin(), tail.end()).first - tokens_.begin());
}

bool History::agrees_with(const History& other) const {
  const Index from = std::max(begin_, other.begin_), to = std::min(end(), other.end());
  if (from > to) return false;
  const auto count = static_cast<std::size_t>(to - from);
  const auto mine = since(from).first(count), theirs = other.since(from).first(count);
  return digest_before(from) == other.digest_before(from) &&
         std::equal(mine.begin(), mine.end(), theirs.begin());
}

}  // namespace plait
