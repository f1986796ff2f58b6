// Text to tokens and back.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/view.h"
#include "runtime/text/utf8.h"

namespace plait {

// A tokenizer's own files by name, as a model file's /tokenizer group stores them.
using TokenizerFiles = std::map<std::string, std::string>;

// Immutable; shared by threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::string kind() const = 0;  // "bytes"
  virtual Index vocab() const = 0;       // tokens are 0 .. vocab - 1
  virtual std::vector<Token> encode(std::string_view text) const = 0;
  // The bytes a token stands for, not necessarily whole characters. Throws Error on a token outside the
  // vocabulary.
  virtual std::string piece(Token token) const = 0;
  // What make_tokenizer builds this tokenizer from again.
  virtual TokenizerFiles files() const = 0;

  // The bytes of all pieces.
  std::string decode(std::span<const Token> tokens) const;
};

// One token per byte, id = byte: 256 tokens, any bytes, no special tokens.
class ByteTokenizer final : public Tokenizer {
 public:
  std::string kind() const override { return "bytes"; }
  Index vocab() const override { return 256; }
  std::vector<Token> encode(std::string_view text) const override;
  std::string piece(Token token) const override;
  TokenizerFiles files() const override;
};

// The tokenizer of a model: no files mean bytes. Throws Error naming `origin` when the files are of no kind
// this program reads.
std::shared_ptr<const Tokenizer> make_tokenizer(const TokenizerFiles& files, const std::string& origin);

// Text of tokens that arrive one by one: always well-formed UTF-8, never half a character; bytes that are not
// UTF-8 become U+FFFD. `tokenizer` must outlive it.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  std::string push(Token token) { return stream_.push(tokenizer_->piece(token)); }
  std::string finish() { return stream_.finish(); }

 private:
  const Tokenizer* tokenizer_;
  Utf8Stream stream_;
};

}  // namespace plait
