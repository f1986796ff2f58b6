#include "runtime/text/decoder.h"

#include <array>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/text/byte_alphabet.h"
#include "runtime/text/byte_fallback.h"
#include "runtime/text/growth.h"
#include "runtime/text/json_object.h"
#include "runtime/text/metaspace.h"
#include "runtime/text/text_pattern.h"
#include "runtime/text/utf8.h"

namespace plait {
namespace {

// Token by token; `first` of the first one.
class PerToken final : public DecoderStage {
 public:
  using Function = std::function<std::string(std::string token, bool first)>;
  explicit PerToken(const Function& function) : function_(function) {}
  void push(std::string token, const Emit& emit) override {
    emit(function_(std::move(token), std::exchange(first_, false)));
  }

 private:
  const Function& function_;
  bool first_ = true;
};

class ByteLevel final : public DecoderStage {
 public:
  void push(std::string token, const Emit& emit) override {
    emit(utf8_.push(from_byte_alphabet(token).value_or(token)));
  }
  void finish(const Emit& emit) override { emit(utf8_.finish()); }

 private:
  Utf8Stream utf8_;
};

// A run of byte tokens is text, or one U+FFFD per byte: what it is shows at its end.
class ByteFallback final : public DecoderStage {
 public:
  void push(std::string token, const Emit& emit) override {
    if (const auto byte = fallback_byte(token)) {
      run_ += static_cast<char>(*byte);
      return;
    }
    finish(emit);
    emit(std::move(token));
  }
  void finish(const Emit& emit) override {
    if (run_.empty()) return;
    const std::string run = std::exchange(run_, {});
    if (to_valid_utf8(run) == run) return emit(run);
    for (std::size_t i = 0; i < run.size(); ++i) emit("\xEF\xBF\xBD");
  }

 private:
  std::string run_;
};

class Fuse final : public DecoderStage {
 public:
  void push(std::string token, const Emit& emit) override { emit(std::move(token)); }
};

// Collects the parts of one token for stages that must see it whole.
class Gather final : public DecoderStage {
 public:
  void push(std::string token, const Emit&) override { whole_ += token; }
  void finish(const Emit& emit) override { emit(std::exchange(whole_, {})); }

 private:
  std::string whole_;
};

// Takes up to `count` characters from the beginning of a token that arrives in parts.
class StripBeginning final : public DecoderStage {
 public:
  StripBeginning(const std::string& content, Index count) : content_(content), left_(count) {}
  void push(std::string token, const Emit& emit) override {
    std::size_t begin = 0;
    while (left_ > 0 && begin < token.size()) {
      const bool gone = token.compare(begin, content_.size(), content_) == 0;
      left_ = gone ? left_ - 1 : 0;
      if (gone) begin += content_.size();
    }
    emit(token.substr(begin));
  }

 private:
  const std::string& content_;
  Index left_;
};

std::string replace_all(const std::string& text, std::string_view from, std::string_view to) {
  std::string out;
  std::size_t done = 0;
  for (std::size_t at = 0; (at = text.find(from, at)) != text.npos; done = at += from.size())
    out.append(text, done, at - done).append(to);
  return out.append(text, done);
}

// Tokens with `suffix` end a word; a space follows all but the last.
class WordEnds final : public DecoderStage {
 public:
  explicit WordEnds(const std::string& suffix) : suffix_(suffix) {}
  void push(std::string token, const Emit& emit) override {
    if (held_) emit(replace_all(*held_, suffix_, " "));
    held_ = std::move(token);
  }
  void finish(const Emit& emit) override {
    if (held_) emit(replace_all(*held_, suffix_, ""));
    held_.reset();
  }

 private:
  const std::string& suffix_;
  std::optional<std::string> held_;
};

// English punctuation and contractions close up.
std::string cleaned(std::string text) {
  static constexpr std::array<std::array<std::string_view, 2>, 11> kPairs = {{{" .", "."},
                                                                              {" ?", "?"},
                                                                              {" !", "!"},
                                                                              {" ,", ","},
                                                                              {" ' ", "'"},
                                                                              {" n't", "n't"},
                                                                              {" 'm", "'m"},
                                                                              {" do not", " don't"},
                                                                              {" 's", "'s"},
                                                                              {" 've", "'ve"},
                                                                              {" 're", "'re"}}};
  for (const auto& [from, to] : kPairs) text = replace_all(text, from, to);
  return text;
}

PerToken::Function word_piece(const std::string& prefix, bool cleanup) {
  return [=](std::string token, bool first) {
    if (!first) {
      if (token.starts_with(prefix))
        token.erase(0, prefix.size());
      else
        token = " " + token;
    }
    return cleanup ? cleaned(std::move(token)) : token;
  };
}

PerToken::Function metaspace(const MetaspaceOptions& options) {
  const bool drops = options.prepend != MetaspaceOptions::Prepend::never;
  return [mark = options.replacement, drops](std::string token, bool first) {
    return replace_all(token, mark, first && drops ? "" : " ");
  };
}

PerToken::Function strip(const std::string& content, Index start, Index stop) {
  return [=](std::string token, bool) {
    Index taken = 0;
    while (taken < start && token.starts_with(content)) token.erase(0, content.size()), ++taken;
    for (taken = 0; taken < stop && token.ends_with(content); ++taken)
      token.resize(token.size() - content.size());
    return token;
  };
}

}  // namespace

Decoder::Decoder(const nlohmann::json& json, const std::string& where) {
  if (!json.is_null()) {
    add(json, where);
    return;
  }
  static const PerToken::Function spaced = [](std::string token, bool first) {
    return first ? token : " " + token;
  };
  append([] { return std::make_unique<PerToken>(spaced); }, false);
}

void Decoder::append(Factory factory, bool joins) {
  stages_.push_back(std::move(factory));
  joined_ = joined_ || joins;
}

void Decoder::add(const nlohmann::json& json, const std::string& where) {
  JsonObject object(json, where);
  const std::string type = object.type();
  if (type == "Sequence") {
    std::size_t count = 0;
    for (const auto& part : object.array("decoders")) add(part, cat(where, ".decoders[", count++, "]"));
  } else {
    add_stage(type, object);
  }
  object.finish();
}

void Decoder::add_stage(const std::string& type, JsonObject& object) {
  const auto per_token = [&](PerToken::Function function) {
    if (joined_) append([] { return std::make_unique<Gather>(); }, true);
    append([f = std::make_shared<PerToken::Function>(
                std::move(function))] { return std::make_unique<PerToken>(*f); },
           false);
  };
  if (type == "ByteLevel") {
    object.flag_or("add_prefix_space", true);  // these belong to the pre-tokenizer of the same name
    object.flag_or("trim_offsets", true);
    object.flag_or("use_regex", true);
    if (joined_) append([] { return std::make_unique<Gather>(); }, true);
    byte_level_ = true;
    return append([] { return std::make_unique<ByteLevel>(); }, true);
  }
  if (type == "ByteFallback") {
    if (joined_) append([] { return std::make_unique<Gather>(); }, true);
    byte_fallback_ = true;
    return append([] { return std::make_unique<ByteFallback>(); }, false);
  }
  if (type == "Fuse") return append([] { return std::make_unique<Fuse>(); }, true);
  if (type == "Metaspace") return per_token(metaspace(read_metaspace(object)));
  if (type == "WordPiece") return per_token(word_piece(object.text("prefix"), object.flag("cleanup")));
  if (type == "Replace") {
    auto pattern = std::make_shared<TextPattern>(object.at("pattern"), object.where());
    return per_token([pattern, content = object.text("content")](std::string token, bool) {
      return pattern->replace(token, content, growth_limit(token.size()), nullptr);
    });
  }
  if (type == "Strip") {
    const std::string content = object.text("content");
    const Index start = object.integer("start", 0, 1 << 20), stop = object.integer("stop", 0, 1 << 20);
    if (content.empty()) fail(object.where(), ": 'content' must be one character");
    if (!joined_ || stop > 0) return per_token(strip(content, start, stop));
    return append([content, start] { return std::make_unique<StripBeginning>(content, start); }, false);
  }
  if (type == "BPEDecoder") {
    const std::string suffix = object.text("suffix");
    if (suffix.empty()) fail(object.where(), ": 'suffix' must not be empty");
    if (joined_) append([] { return std::make_unique<Gather>(); }, true);
    return append([suffix] { return std::make_unique<WordEnds>(suffix); }, false);
  }
  fail(object.where(), ": this plait does not know the decoder '", type.substr(0, 64), "'");
}

Decoder::Stream Decoder::stream() const {
  std::vector<std::unique_ptr<DecoderStage>> stages;
  for (const Factory& factory : stages_) stages.push_back(factory());
  return Stream(std::move(stages));
}

void Decoder::Stream::feed(std::size_t stage, std::string token, std::string& out) {
  check_growth(token.size(), growth_limit(read_));
  if (stage == stages_.size()) {
    out += token;
    return;
  }
  stages_[stage]->push(std::move(token), [&](std::string next) { feed(stage + 1, std::move(next), out); });
}

std::string Decoder::Stream::push(std::string_view token) {
  read_ += token.size();
  std::string out;
  feed(0, std::string(token), out);
  return out;
}

std::string Decoder::Stream::finish() {
  std::string out;
  for (std::size_t stage = 0; stage < stages_.size(); ++stage)
    stages_[stage]->finish([&](std::string next) { feed(stage + 1, std::move(next), out); });
  return out;
}

std::string Decoder::piece(std::string_view token) const {
  if (byte_level_) return from_byte_alphabet(token).value_or(std::string(token));
  if (const auto byte = fallback_byte(token); byte && byte_fallback_)
    return std::string(1, static_cast<char>(*byte));
  Stream stream = this->stream();
  std::string text = stream.push("x");  // so that the token is not the first
  text += stream.push(token);
  text += stream.finish();
  return text.substr(std::min<std::size_t>(1, text.size()));
}

}  // namespace plait
