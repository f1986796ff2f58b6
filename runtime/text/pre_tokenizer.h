// The second stage of a tokenizer: text to pieces, in which the model looks for tokens.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/text/growth.h"
#include "runtime/text/regex.h"

namespace plait {

struct Pieces {
  struct Piece {
    std::size_t begin, end;  // of `text`; not empty
    bool first;              // begins where the user's text begins
  };
  std::string text;
  std::vector<Piece> pieces;
  std::size_t limit = growth_limit(text.size());  // bytes; what makes the text longer is an Error

  std::string_view view(const Piece& piece) const {
    return std::string_view(text).substr(piece.begin, piece.end - piece.begin);
  }
};

// Immutable; shared by threads.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void apply(Pieces& pieces) const = 0;
};

// null gives one that cuts nothing. Throws Error naming `where` for what this plait does not know.
std::unique_ptr<const PreTokenizer> make_pre_tokenizer(const nlohmann::json& json, const std::string& where);

// What becomes of the matches a text is split by.
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

// Parts of a text in order; `match` of every second one or so.
struct Part {
  Range range;
  bool match;
};
// The pieces of a text whose parts these are.
std::vector<Range> split_parts(const std::vector<Part>& parts, SplitBehavior behavior);

}  // namespace plait
