// The tokens a stream was fed: all of them, or the last ones and a digest of those before.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/base/view.h"

namespace plait {

// No position is larger: all are exact as doubles, and sums of two as integers.
inline constexpr Index kMostTokens = Index{1} << 53;

// A value.
class History {
 public:
  // Tokens go in whole blocks from the begin, so that the digest of what went is a function of the tokens and
  // of where they end: d(0) is empty, d(n + 1) the SHA-256, in hex, of d(n) and the next block's bytes.
  static constexpr Index kBlock = 512;

  History() = default;
  // A saved one. begin: a multiple of kBlock; digest: of the tokens before it.
  History(Index begin, std::string digest, std::vector<Token> tokens);

  Index begin() const { return begin_; }  // of the tokens held
  Index end() const { return begin_ + static_cast<Index>(tokens_.size()); }
  const std::string& digest() const { return digest_; }  // of those before begin()
  std::span<const Token> tokens() const { return tokens_; }
  std::span<const Token> since(Index position) const;  // [position, end()), which are held
  std::size_t bytes() const { return tokens_.size() * sizeof(Token); }
  // begin() after forget_before(position).
  static Index kept_from(Index position) { return position > 0 ? position / kBlock * kBlock : 0; }

  void append(std::span<const Token> tokens);
  void cut(Index end);  // not before begin()
  // As many whole blocks as lie before `position`.
  void forget_before(Index position);

  // How many tokens the two begin with in common; 0 where what is held does not tell.
  Index shared(std::span<const Token> tokens) const;
  // Whether one is a beginning of the other; false where what is held does not tell.
  bool agrees_with(const History& other) const;

 private:
  std::string digest_before(Index position) const;  // a multiple of kBlock, of tokens held or their begin

  Index begin_ = 0;
  std::string digest_;
  std::vector<Token> tokens_;
};

}  // namespace plait
