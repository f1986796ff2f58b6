#include "runtime/run/history.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "runtime/base/digest.h"

namespace plait {

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
  const auto gone = since(begin_).first(static_cast<std::size_t>(begin - begin_));
  constexpr auto kStep = static_cast<std::size_t>(kBlock);
  for (std::size_t at = 0; at < gone.size(); at += kStep) {
    const auto block = gone.subspan(at, kStep);
    Digest digest;
    digest.add(digest_);
    digest.add(block.data(), block.size_bytes());
    digest_ = digest.hex();
  }
  tokens_.erase(tokens_.begin(), tokens_.begin() + (begin - begin_));
  begin_ = begin;
}

Index History::shared(std::span<const Token> tokens) const {
  if (static_cast<Index>(tokens.size()) < begin_) return 0;
  const auto head = tokens.first(static_cast<std::size_t>(begin_)), tail = tokens.subspan(head.size());
  History other;
  other.append(head);
  other.forget_before(begin_);
  if (other.digest() != digest_) return 0;
  return begin_ +
         (std::mismatch(tokens_.begin(), tokens_.end(), tail.begin(), tail.end()).first - tokens_.begin());
}

bool History::agrees_with(const History& other) const {
  const Index from = std::max(begin_, other.begin_), to = std::min(end(), other.end());
  if (from > to) return false;
  History a = *this, b = other;
  a.forget_before(from);
  b.forget_before(from);
  return a.digest_ == b.digest_ &&
         std::equal(a.tokens_.begin(), a.tokens_.begin() + (to - from), b.tokens_.begin());
}

}  // namespace plait
