// The tokenizer a tokenizer.json describes: normalizer, pre-tokenizer, model, post-processor, decoder, as
// Hugging Face tokenizers 0.23 runs them. Ill-formed UTF-8 in a text is replaced first (utf8.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/text/added_tokens.h"
#include "runtime/text/compiled_tables.h"
#include "runtime/text/decoder.h"
#include "runtime/text/normalizer.h"
#include "runtime/text/post_processor.h"
#include "runtime/text/pre_tokenizer.h"
#include "runtime/text/subword.h"
#include "runtime/text/tokenizer.h"

namespace plait {

inline constexpr const char* kTokenizerJson = "tokenizer.json";

class JsonTokenizer final : public Tokenizer {
 public:
  // Reads tokenizer.json or its compiled tables, and of tokenizer_config.json and generation_config.json,
  // where they are, the ids of bos and eos. Throws Error naming `origin` for every component, key and option
  // this plait does not know.
  JsonTokenizer(const TokenizerFiles& files, const std::string& origin);

  std::string kind() const override { return model_->kind(); }
  Index vocab() const override { return vocab_; }
  std::vector<Token> encode(std::string_view text, Specials specials = Specials::with) const override;
  std::string piece(Token token) const override;
  std::unique_ptr<Decoding> decoding(Specials specials) const override;
  SpecialTokens special_tokens() const override { return special_tokens_; }
  TokenizerFiles files() const override { return files_; }

  // The text the decoder sees for a token. Throws Error on a token outside the vocabulary.
  std::string_view text(Token token) const;
  bool is_special(std::string_view text) const { return added_->is_special(text); }
  Decoder::Stream decoder_stream() const { return decoder_->stream(); }

 private:
  void build(TokenizerParts parts, const std::string& where);
  void encode_raw(std::string_view text, bool first, std::vector<Token>& out) const;

  TokenizerFiles files_;
  std::unique_ptr<const Normalizer> normalizer_;
  std::unique_ptr<const PreTokenizer> pre_tokenizer_;
  std::unique_ptr<const Subword> model_;
  std::unique_ptr<const AddedTokens> added_;
  std::unique_ptr<const Decoder> decoder_;
  PostProcessor post_processor_;
  SpecialTokens special_tokens_;
  Index vocab_ = 0;
};

}  // namespace plait
