// Tokens found in the text before the model sees it: special tokens and those added after training.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "runtime/text/normalizer.h"
#include "runtime/text/regex.h"
#include "runtime/text/trie.h"
#include "runtime/text/vocabulary.h"

namespace plait {

class AddedTokens {
 public:
  enum class Stage { raw, normalized };  // which text a token is looked for in

  // `json` is the list added_tokens. Throws Error naming `where` for anything else, and for an id that is not
  // the one the text has in `vocabulary` or, for new texts, the next free one.
  AddedTokens(const nlohmann::json& json, const std::string& where, const Vocabulary& vocabulary,
              const Normalizer& normalizer);

  // The text cut into stretches, in order; `token` of those that are one, surrounding spaces included where
  // the token takes them. Leftmost token first, of several there the longest.
  struct Stretch {
    Range range;
    std::optional<Token> token;
  };
  std::vector<Stretch> find(std::string_view text, Stage stage) const;

  std::optional<Token> id(std::string_view content) const;
  std::optional<std::string_view> text(Token id) const;  // for decoding: as it looks after normalization
  bool is_special(std::string_view text) const;
  Index limit() const { return limit_; }  // one more than the largest id

 private:
  struct Added {
    std::string content, normalized_content;
    bool single_word, lstrip, rstrip, normalized, special;
  };
  void check_id(const std::string& where, const std::string& content, std::int64_t id,
                const Vocabulary& vocabulary) const;
  Trie trie(Stage stage) const;

  std::unordered_map<Token, Added> added_;
  std::unordered_map<std::string, Token> ids_;
  std::unordered_set<std::string> special_;
  Index limit_ = 0;
  std::optional<Trie> raw_, normalized_;
};

}  // namespace plait
