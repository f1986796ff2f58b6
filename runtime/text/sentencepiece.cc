#include "runtime/text/sentencepiece.h"

#include <sentencepiece_processor.h>

#include "runtime/base/error.h"
#include "runtime/text/byte_fallback.h"
#include "runtime/text/json_object.h"
#include "runtime/text/special_tokens.h"

namespace plait {

struct SentencePiece::Impl {
  sentencepiece::SentencePieceProcessor processor;
  TokenizerFiles files;
  SpecialTokens specials;
  std::vector<Token> before, after;
};

namespace {

// Byte tokens wait for the end of their run: only then is it known what they spell. The text before a token
// is of no influence but for the first, so one token of context is decoded along and taken off again.
class PieceDecoding final : public Decoding {
 public:
  explicit PieceDecoding(const SentencePiece& tokenizer) : tokenizer_(tokenizer) {}

  std::string push(Token token) override {
    if (token < 0 || token >= tokenizer_.vocab())
      fail("token ", token, " is outside the vocabulary of ", tokenizer_.vocab());
    if (tokenizer_.is_byte(token)) {
      waiting_.push_back(token);
      return {};
    }
    std::string out = finish();
    waiting_.push_back(token);
    return out + finish();
  }

  std::string finish() override {
    std::vector<int> all = context_;
    all.insert(all.end(), waiting_.begin(), waiting_.end());
    const std::string known = tokenizer_.text(context_), text = tokenizer_.text(all);
    if (!waiting_.empty()) {
      const int last = waiting_.back();
      if (text.empty() || tokenizer_.is_byte(last) || tokenizer_.text({last}).empty())
        context_ = std::move(all);
      else
        context_ = {last};
    }
    waiting_.clear();
    return text.substr(known.size());
  }

 private:
  const SentencePiece& tokenizer_;
  std::vector<int> context_, waiting_;
};

}  // namespace

SentencePiece::SentencePiece(const TokenizerFiles& files, const std::string& origin) {
  auto impl = std::make_unique<Impl>();
  impl->files = files;
  const auto status = impl->processor.LoadFromSerializedProto(files.at("tokenizer.model"));
  if (!status.ok()) fail(origin, ": tokenizer.model is not a sentencepiece model: ", status.error_message());
  const auto& processor = impl->processor;
  impl->specials = find_special_tokens(files, origin, processor.GetPieceSize(), [&](const std::string& text) {
    const int id = processor.PieceToId(text);
    return processor.IdToPiece(id) == text ? std::optional<Token>(id) : std::nullopt;
  });
  if (!impl->specials.bos && processor.bos_id() >= 0) impl->specials.bos = processor.bos_id();
  if (impl->specials.eos.empty() && processor.eos_id() >= 0) impl->specials.eos = {processor.eos_id()};
  const auto config = tokenizer_object(files, "tokenizer_config.json", origin);
  const auto wanted = [&](const char* key) { return config.value(key, nlohmann::json()) == true; };
  if (wanted("add_bos_token") && impl->specials.bos) impl->before = {*impl->specials.bos};
  if (wanted("add_eos_token") && !impl->specials.eos.empty()) impl->after = {impl->specials.eos.front()};
  impl_ = std::move(impl);
}

SentencePiece::~SentencePiece() = default;

Index SentencePiece::vocab() const { return impl_->processor.GetPieceSize(); }
SpecialTokens SentencePiece::special_tokens() const { return impl_->specials; }
TokenizerFiles SentencePiece::files() const { return impl_->files; }
bool SentencePiece::is_byte(Token token) const { return impl_->processor.IsByte(token); }

std::vector<Token> SentencePiece::encode(std::string_view text, Specials specials) const {
  std::vector<int> ids;
  const std::string valid = to_valid_utf8(text);
  const auto status = impl_->processor.Encode({valid.data(), valid.size()}, &ids);
  if (!status.ok()) fail("sentencepiece cannot encode this text: ", status.error_message());
  std::vector<Token> out;
  if (specials == Specials::with) out = impl_->before;
  out.insert(out.end(), ids.begin(), ids.end());
  if (specials == Specials::with) out.insert(out.end(), impl_->after.begin(), impl_->after.end());
  return out;
}

std::string SentencePiece::text(const std::vector<int>& tokens) const {
  std::string text;
  const auto status = impl_->processor.Decode(tokens, &text);
  if (!status.ok()) fail("sentencepiece cannot decode these tokens: ", status.error_message());
  return text;
}

std::string SentencePiece::piece(Token token) const {
  if (token < 0 || token >= vocab()) fail("token ", token, " is outside the vocabulary of ", vocab());
  const std::string& text = impl_->processor.IdToPiece(token);
  if (is_byte(token)) return std::string(1, static_cast<char>(fallback_byte(text).value_or('?')));
  if (impl_->processor.IsControl(token)) return {};
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const bool space = text.compare(at, 3, "\xE2\x96\x81") == 0;
    out += space ? std::string_view(" ") : std::string_view(text).substr(at, 1);
    at += space ? 3 : 1;
  }
  return out;
}

std::unique_ptr<Decoding> SentencePiece::decoding(Specials) const {
  return std::make_unique<PieceDecoding>(*this);
}

}  // namespace plait
