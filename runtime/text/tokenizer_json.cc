#include "runtime/text/tokenizer_json.h"

#include <algorithm>
#include <functional>

#include "runtime/base/error.h"
#include "runtime/text/json_object.h"
#include "runtime/text/special_tokens.h"

namespace plait {
namespace {

// Pieces seen a moment ago, by hash: their tokens are copied from where they were written. Texts repeat
// themselves, and a look is cheaper than merging again.
class Recent {
 public:
  explicit Recent(std::size_t pieces) {
    while (slots_.size() < std::min<std::size_t>(pieces, 4096)) slots_.resize(2 * slots_.size());
  }

  void encode(const Subword& model, std::string_view piece, std::vector<Token>& out) {
    if (piece.size() > kLongest) return model.encode(piece, out);
    Slot& slot = slots_[std::hash<std::string_view>()(piece) & (slots_.size() - 1)];
    if (slot.piece == piece && !piece.empty()) {
      for (std::size_t i = 0; i < slot.count; ++i) out.push_back(out[slot.begin + i]);
      return;
    }
    slot = {piece, out.size(), 0};
    model.encode(piece, out);
    slot.count = out.size() - slot.begin;
  }

 private:
  static constexpr std::size_t kLongest = 64;
  struct Slot {
    std::string_view piece;
    std::size_t begin = 0, count = 0;  // of the tokens written so far
  };
  std::vector<Slot> slots_{16};
};

class JsonDecoding final : public Decoding {
 public:
  JsonDecoding(const JsonTokenizer& tokenizer, Specials specials)
      : tokenizer_(tokenizer), specials_(specials), stream_(tokenizer.decoder_stream()) {}

  std::string push(Token token) override {
    const std::string_view text = tokenizer_.text(token);
    if (text.empty() || (specials_ == Specials::without && tokenizer_.is_special(text))) return {};
    return stream_.push(text);
  }
  std::string finish() override { return stream_.finish(); }

 private:
  const JsonTokenizer& tokenizer_;
  Specials specials_;
  Decoder::Stream stream_;
};

TokenizerParts parts_of(const TokenizerFiles& files, const std::string& origin) {
  const std::string& source = files.at(kTokenizerJson);
  const auto compiled = files.find(kCompiledTables);
  if (compiled != files.end()) {
    auto parts = read_compiled(compiled->second, source, cat(origin, ": /tokenizer/", kCompiledTables));
    if (parts) return std::move(*parts);
  }
  return parse_parts(source, cat(origin, ": ", kTokenizerJson));
}

}  // namespace

JsonTokenizer::JsonTokenizer(const TokenizerFiles& files, const std::string& origin) : files_(files) {
  build(parts_of(files, origin), cat(origin, ": ", kTokenizerJson));
  special_tokens_ = find_special_tokens(files, origin, vocab_, [&](const std::string& text) {
    const auto added = added_->id(text);
    return added ? added : model_->vocabulary().find(text);
  });
}

void JsonTokenizer::build(TokenizerParts parts, const std::string& where) {
  const nlohmann::json& json = parts.settings;
  JsonObject object(json, where);
  if (object.has("version") && object.text("version") != "1.0")
    fail(where, " has version '", object.text("version").substr(0, 64), "', this plait reads 1.0");
  // How callers shorten and fill batches: settings of a call that are saved along, no part of the tokenizer.
  object.has("truncation");
  object.has("padding");
  const auto part = [&](const char* key) { return object.has(key) ? json.at(key) : nlohmann::json(); };
  normalizer_ = make_normalizer(part("normalizer"), where + ": normalizer");
  pre_tokenizer_ = make_pre_tokenizer(part("pre_tokenizer"), where + ": pre_tokenizer");
  model_ = make_subword(object.at("model"), std::move(parts.tables), where + ": model");
  added_ = std::make_unique<AddedTokens>(part("added_tokens"), where + ": added_tokens", model_->vocabulary(),
                                         *normalizer_);
  vocab_ = std::max(model_->vocabulary().limit(), added_->limit());
  post_processor_ = make_post_processor(part("post_processor"), where + ": post_processor", vocab_);
  decoder_ = std::make_unique<Decoder>(part("decoder"), where + ": decoder");
  object.finish();
}

std::vector<Token> JsonTokenizer::encode(std::string_view text, Specials specials) const {
  if (text.size() > kMaxText / 4)
    fail("a text of ", text.size(), " bytes is too long for one encoding; at most ", kMaxText / 4);
  const std::string valid = to_valid_utf8(text);
  std::vector<Token> out;
  if (specials == Specials::with) out = post_processor_.before;
  for (const AddedTokens::Stretch& stretch : added_->find(valid, AddedTokens::Stage::raw)) {
    const auto view =
        std::string_view(valid).substr(stretch.range.begin, stretch.range.end - stretch.range.begin);
    if (stretch.token)
      out.push_back(*stretch.token);
    else if (!view.empty())
      encode_raw(view, stretch.range.begin == 0, out);
  }
  if (specials == Specials::with)
    out.insert(out.end(), post_processor_.after.begin(), post_processor_.after.end());
  return out;
}

// A stretch without raw added tokens: the normalized ones are looked for, the rest goes to the model.
void JsonTokenizer::encode_raw(std::string_view text, bool first, std::vector<Token>& out) const {
  Normalized normalized{.text = std::string(text), .whole_start = first};
  normalizer_->apply(normalized);
  const std::string& whole = normalized.text;
  for (const AddedTokens::Stretch& stretch : added_->find(whole, AddedTokens::Stage::normalized)) {
    if (stretch.token) {
      out.push_back(*stretch.token);
      continue;
    }
    const auto [begin, end] = stretch.range;
    if (begin == end) continue;
    Pieces pieces{whole.substr(begin, end - begin), {{0, end - begin, normalized.whole_start && begin == 0}}};
    pre_tokenizer_->apply(pieces);
    Recent recent(pieces.pieces.size());
    for (const Pieces::Piece& piece : pieces.pieces) recent.encode(*model_, pieces.view(piece), out);
  }
}

std::string_view JsonTokenizer::text(Token token) const {
  if (token < 0 || token >= vocab_) fail("token ", token, " is outside the vocabulary of ", vocab_);
  const auto added = added_->text(token);
  return added ? *added : model_->vocabulary().text(token);
}

std::string JsonTokenizer::piece(Token token) const {
  const std::string_view text = this->text(token);
  return text.empty() ? std::string() : decoder_->piece(text);
}

std::unique_ptr<Decoding> JsonTokenizer::decoding(Specials specials) const {
  return std::make_unique<JsonDecoding>(*this, specials);
}

}  // namespace plait
