#include "runtime/text/pre_tokenizer.h"

#include <algorithm>
#include <functional>

#include "runtime/base/error.h"
#include "runtime/text/byte_alphabet.h"
#include "runtime/text/json_object.h"
#include "runtime/text/metaspace.h"
#include "runtime/text/text_pattern.h"
#include "runtime/text/unicode.h"

namespace plait {
namespace {

using Cutter = std::function<std::vector<Part>(std::string_view)>;

// Adjacent matches stay apart; what lies between them is no match.
std::vector<Part> parts_of(std::string_view text, const std::vector<Range>& matches) {
  std::vector<Part> parts;
  parts.reserve(2 * matches.size() + 1);
  std::size_t done = 0;
  for (const Range& match : matches) {
    if (done != match.begin) parts.push_back({{done, match.begin}, false});
    parts.push_back({match, true});
    done = match.end;
  }
  if (done != text.size()) parts.push_back({{done, text.size()}, false});
  return parts;
}

Cutter by_character(bool (*wanted)(char32_t)) {
  return [wanted](std::string_view text) {
    std::vector<Range> matches;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t begin = at;
      if (wanted(unicode::next(text, at))) matches.push_back({begin, at});
    }
    return parts_of(text, matches);
  };
}

Cutter inverted(Cutter cutter) {
  return [cutter = std::move(cutter)](std::string_view text) {
    std::vector<Part> parts = cutter(text);
    for (Part& part : parts) part.match = !part.match;
    return parts;
  };
}

// Cuts every piece; the text stays.
class Split final : public PreTokenizer {
 public:
  Split(Cutter cutter, SplitBehavior behavior) : cutter_(std::move(cutter)), behavior_(behavior) {}

  void apply(Pieces& pieces) const override {
    std::vector<Pieces::Piece> out;
    for (const Pieces::Piece& piece : pieces.pieces)
      for (const Range& range : split_parts(cutter_(pieces.view(piece)), behavior_))
        if (range.begin != range.end)
          out.push_back(
              {piece.begin + range.begin, piece.begin + range.end, piece.first && range.begin == 0});
    pieces.pieces = std::move(out);
  }

 private:
  Cutter cutter_;
  SplitBehavior behavior_;
};

// Rewrites every piece; the cuts stay.
class Rewrite final : public PreTokenizer {
 public:
  using Function = std::function<void(std::string_view, bool first, std::string& out)>;
  explicit Rewrite(Function function) : function_(std::move(function)) {}

  void apply(Pieces& pieces) const override {
    std::string text;
    text.reserve(pieces.text.size() + pieces.text.size() / 4);
    for (Pieces::Piece& piece : pieces.pieces) {
      const std::size_t begin = text.size();
      function_(pieces.view(piece), piece.first, text);
      check_growth(text.size(), pieces.limit);
      piece.begin = begin;
      piece.end = text.size();
    }
    pieces.text = std::move(text);
  }

 private:
  Function function_;
};

class Sequence final : public PreTokenizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<const PreTokenizer>> parts) : parts_(std::move(parts)) {}
  void apply(Pieces& pieces) const override {
    for (const auto& part : parts_) part->apply(pieces);
  }

 private:
  std::vector<std::unique_ptr<const PreTokenizer>> parts_;
};

using Parts = std::vector<std::unique_ptr<const PreTokenizer>>;

std::unique_ptr<const PreTokenizer> split(Cutter cutter, SplitBehavior behavior) {
  return std::make_unique<Split>(std::move(cutter), behavior);
}

Cutter by_regex(const char* expression) {
  auto regex = std::make_shared<Regex>(expression, "a built-in expression");
  return [regex](std::string_view text) { return parts_of(text, regex->matches(text)); };
}

SplitBehavior behavior_of(JsonObject& object) {
  const std::string name = object.text("behavior");
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  fail(object.where(), ": this plait does not know the behavior '", name.substr(0, 64), "'");
}

std::unique_ptr<const PreTokenizer> byte_level(JsonObject& object) {
  object.flag_or("trim_offsets", true);  // moves offsets, which plait does not have
  Parts parts;
  if (object.flag("add_prefix_space"))
    parts.push_back(std::make_unique<Rewrite>([](std::string_view piece, bool, std::string& out) {
      if (piece[0] != ' ') out += ' ';
      out += piece;
    }));
  if (object.flag_or("use_regex", true))
    parts.push_back(
        split(by_regex(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"),
              SplitBehavior::isolated));
  parts.push_back(std::make_unique<Rewrite>(
      [](std::string_view piece, bool, std::string& out) { out += to_byte_alphabet(piece); }));
  return std::make_unique<Sequence>(std::move(parts));
}

std::unique_ptr<const PreTokenizer> split_by_pattern(JsonObject& object) {
  auto pattern = std::make_shared<TextPattern>(object.at("pattern"), object.where());
  Cutter cutter = [pattern](std::string_view text) { return parts_of(text, pattern->matches(text)); };
  if (object.flag("invert")) cutter = inverted(std::move(cutter));
  return split(std::move(cutter), behavior_of(object));
}

std::unique_ptr<const PreTokenizer> metaspace(JsonObject& object) {
  const MetaspaceOptions options = read_metaspace(object);
  Parts parts;
  parts.push_back(std::make_unique<Rewrite>([options](std::string_view piece, bool first, std::string& out) {
    const bool marked = piece[0] == ' ' || piece.starts_with(options.replacement);
    const bool wanted = options.prepend == MetaspaceOptions::Prepend::always ||
                        (options.prepend == MetaspaceOptions::Prepend::first && first);
    if (wanted && !marked) out += options.replacement;
    for (const char c : piece) c == ' ' ? out += options.replacement : out += c;
  }));
  if (options.split)
    parts.push_back(split(
        [mark = options.replacement](std::string_view text) {
          std::vector<Range> matches;
          for (std::size_t at = 0; (at = text.find(mark, at)) != text.npos; at += mark.size())
            matches.push_back({at, at + mark.size()});
          return parts_of(text, matches);
        },
        SplitBehavior::merged_with_next));
  return std::make_unique<Sequence>(std::move(parts));
}

std::unique_ptr<const PreTokenizer> bert() {
  Parts parts;
  parts.push_back(split(by_character(unicode::is_white_space), SplitBehavior::removed));
  parts.push_back(split(by_character(unicode::is_punctuation), SplitBehavior::isolated));
  return std::make_unique<Sequence>(std::move(parts));
}

// Runs of word characters, and runs of what is neither word nor white space.
std::vector<Part> words(std::string_view text) {
  enum class Class { space, word, other };
  const auto class_of = [](char32_t c) {
    return unicode::is_white_space(c) ? Class::space : unicode::is_word(c) ? Class::word : Class::other;
  };
  std::vector<Range> matches;
  Class last = Class::space;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    const Class now = class_of(unicode::next(text, at));
    if (now != Class::space) {
      if (now == last)
        matches.back().end = at;
      else
        matches.push_back({begin, at});
    }
    last = now;
  }
  return parts_of(text, matches);
}

std::unique_ptr<const PreTokenizer> sequence(JsonObject& object) {
  Parts parts;
  for (const auto& part : object.array("pretokenizers"))
    parts.push_back(make_pre_tokenizer(part, cat(object.where(), ".pretokenizers[", parts.size(), "]")));
  return std::make_unique<Sequence>(std::move(parts));
}

std::unique_ptr<const PreTokenizer> by_type(const std::string& type, JsonObject& object) {
  if (type == "Sequence") return sequence(object);
  if (type == "ByteLevel") return byte_level(object);
  if (type == "Split") return split_by_pattern(object);
  if (type == "Metaspace") return metaspace(object);
  if (type == "BertPreTokenizer") return bert();
  if (type == "Whitespace") return split(inverted(words), SplitBehavior::removed);
  if (type == "WhitespaceSplit") return split(by_character(unicode::is_white_space), SplitBehavior::removed);
  if (type == "Digits")
    return split(by_character(unicode::is_number),
                 object.flag("individual_digits") ? SplitBehavior::isolated : SplitBehavior::contiguous);
  if (type == "Punctuation")
    return split(by_character(unicode::is_punctuation),
                 object.has("behavior") ? behavior_of(object) : SplitBehavior::isolated);
  fail(object.where(), ": this plait does not know the pre-tokenizer '", type.substr(0, 64), "'");
}

// Parts folded from one end: a match joins what came before it, if that was none.
std::vector<Range> merged(std::vector<Part> parts, bool backwards) {
  if (backwards) std::reverse(parts.begin(), parts.end());
  std::vector<Range> out;
  bool previous = false;
  for (const Part& part : parts) {
    if (part.match && !previous && !out.empty()) {
      (backwards ? out.back().begin : out.back().end) = backwards ? part.range.begin : part.range.end;
    } else {
      out.push_back(part.range);
    }
    previous = part.match;
  }
  if (backwards) std::reverse(out.begin(), out.end());
  return out;
}

}  // namespace

std::vector<Range> split_parts(const std::vector<Part>& parts, SplitBehavior behavior) {
  if (behavior == SplitBehavior::merged_with_previous) return merged(parts, false);
  if (behavior == SplitBehavior::merged_with_next) return merged(parts, true);
  std::vector<Range> out;
  out.reserve(parts.size());
  bool previous = false;
  for (const Part& part : parts) {
    const bool joins = behavior == SplitBehavior::contiguous && part.match == previous && !out.empty();
    if (joins)
      out.back().end = part.range.end;
    else if (behavior != SplitBehavior::removed || !part.match)
      out.push_back(part.range);
    previous = part.match;
  }
  return out;
}

std::unique_ptr<const PreTokenizer> make_pre_tokenizer(const nlohmann::json& json, const std::string& where) {
  if (json.is_null()) return std::make_unique<Sequence>(Parts());
  JsonObject object(json, where);
  const std::string type = object.type();
  auto made = by_type(type, object);
  object.finish();
  return made;
}

}  // namespace plait
