// tokenizer.model files, through the sentencepiece library. Ill-formed UTF-8 in a text is replaced first
// (utf8.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/text/tokenizer.h"

namespace plait {

class SentencePiece final : public Tokenizer {
 public:
  // Reads tokenizer.model, and where they are the bos and eos of tokenizer_config.json (add_bos_token,
  // add_eos_token: what is put around a text) and generation_config.json. Throws Error naming `origin`.
  SentencePiece(const TokenizerFiles& files, const std::string& origin);
  ~SentencePiece() override;

  std::string kind() const override { return "sentencepiece"; }
  Index vocab() const override;
  std::vector<Token> encode(std::string_view text, Specials specials = Specials::with) const override;
  std::string piece(Token token) const override;
  std::unique_ptr<Decoding> decoding(Specials specials) const override;
  SpecialTokens special_tokens() const override;
  TokenizerFiles files() const override;
  // The library's own text of these tokens.
  std::string text(const std::vector<int>& tokens) const;
  bool is_byte(Token token) const;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace plait
