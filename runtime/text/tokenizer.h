// Text to tokens and back.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/view.h"
#include "runtime/text/utf8.h"

namespace plait {

// A tokenizer's own files by name, as a model file's /tokenizer group stores them.
using TokenizerFiles = std::map<std::string, std::string>;

// What a tokenizer adds to a text (encoding), and special tokens of a text (decoding).
enum class Specials { with, without };

// Where a text begins and ends, by a tokenizer's files.
struct SpecialTokens {
  std::optional<Token> bos;
  std::vector<Token> eos;  // each of them ends a text
  std::string eos_text;    // what ends a text besides, spelled out, because it is no token
};

// Text of tokens that arrive one by one: well-formed UTF-8, never half a character. What has been returned is
// the beginning of the text of all tokens, whatever comes. Must not outlive its tokenizer.
class Decoding {
 public:
  virtual ~Decoding() = default;
  virtual std::string push(Token token) = 0;  // throws Error on a token outside the vocabulary
  virtual std::string finish() = 0;           // the rest
};

// Immutable; shared by threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::string kind() const = 0;  // "bytes", "byte-pair", "unigram", "word-piece", "sentencepiece"
  virtual Index vocab() const = 0;       // tokens are 0 .. vocab - 1
  virtual std::vector<Token> encode(std::string_view text, Specials specials = Specials::with) const = 0;
  // The bytes a token adds to a text that it does not begin, not necessarily whole characters. Throws Error
  // on a token outside the vocabulary.
  virtual std::string piece(Token token) const = 0;
  virtual std::unique_ptr<Decoding> decoding(Specials specials) const = 0;
  virtual SpecialTokens special_tokens() const { return {}; }
  // What make_tokenizer builds this tokenizer from again.
  virtual TokenizerFiles files() const = 0;

  virtual std::string decode(std::span<const Token> tokens, Specials specials = Specials::with) const;
};

// One token per byte, id = byte: 256 tokens, any bytes; encode() adds nothing. decode() gives the bytes as
// they are, well-formed or not.
class ByteTokenizer final : public Tokenizer {
 public:
  explicit ByteTokenizer(SpecialTokens special_tokens = {}) : special_tokens_(std::move(special_tokens)) {}
  std::string kind() const override { return "bytes"; }
  Index vocab() const override { return 256; }
  std::vector<Token> encode(std::string_view text, Specials specials = Specials::with) const override;
  std::string piece(Token token) const override;
  std::unique_ptr<Decoding> decoding(Specials specials) const override;
  SpecialTokens special_tokens() const override { return special_tokens_; }
  TokenizerFiles files() const override;
  std::string decode(std::span<const Token> tokens, Specials specials = Specials::with) const override;

 private:
  SpecialTokens special_tokens_;
};

// The tokenizer of a model: of tokenizer.json, else of tokenizer.model (sentencepiece), else of
// plait_tokenizer.json; no files mean bytes. Throws Error naming `origin` when the files are of no kind this
// program reads.
std::shared_ptr<const Tokenizer> make_tokenizer(const TokenizerFiles& files, const std::string& origin);

// Bytes that make_tokenizer, given them as the file kCompiledTables beside the others, builds the same
// tokenizer from without parsing tokenizer.json; if they are of another version or another tokenizer.json it
// builds from that one. Empty for tokenizers that have none. Throws Error as make_tokenizer does.
std::string compile_tokenizer(const TokenizerFiles& files, const std::string& origin);
inline constexpr const char* kCompiledTables = "compiled";

// A Decoding that shows tokens outside the vocabulary (of models with more rows than tokens) as "<id>".
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, Specials specials = Specials::with)
      : tokenizer_(&tokenizer), specials_(specials), decoding_(tokenizer.decoding(specials)) {}
  std::string push(Token token);
  std::string finish() { return decoding_->finish(); }

 private:
  const Tokenizer* tokenizer_;
  Specials specials_;
  std::unique_ptr<Decoding> decoding_;
};

}  // namespace plait
