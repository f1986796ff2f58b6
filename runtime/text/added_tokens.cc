#include "runtime/text/added_tokens.h"

#include <algorithm>

#include "runtime/base/error.h"
#include "runtime/text/json_object.h"
#include "runtime/text/unicode.h"

namespace plait {
namespace {

bool word_before(std::string_view text, std::size_t at) {
  if (at == 0) return false;
  at = unicode::before(text, at);
  return unicode::is_word(unicode::next(text, at));
}

bool word_at(std::string_view text, std::size_t at) {
  return at < text.size() && unicode::is_word(unicode::next(text, at));
}

std::size_t space_begin(std::string_view text, std::size_t end, std::size_t limit) {
  while (end > limit) {
    const std::size_t begin = unicode::before(text, end);
    std::size_t at = begin;
    if (!unicode::is_white_space(unicode::next(text, at))) break;
    end = begin;
  }
  return end;
}

std::size_t space_end(std::string_view text, std::size_t begin) {
  for (std::size_t at = begin; at < text.size() && unicode::is_white_space(unicode::next(text, at));)
    begin = at;
  return begin;
}

}  // namespace

AddedTokens::AddedTokens(const nlohmann::json& json, const std::string& where, const Vocabulary& vocabulary,
                         const Normalizer& normalizer) {
  if (json.is_null()) return;
  if (!json.is_array()) fail(where, " must be a list, found ", json.type_name());
  for (const auto& item : json) {
    JsonObject object(item, cat(where, "[", added_.size(), "]"));
    const std::string content = object.text("content");
    const std::int64_t id = object.integer("id", 0, Vocabulary::kMaxToken);
    Added token{content,
                content,
                object.flag("single_word"),
                object.flag("lstrip"),
                object.flag("rstrip"),
                object.flag("normalized"),
                object.flag("special")};
    object.finish();
    if (content.empty()) continue;  // tokenizers leaves it out
    check_id(object.where(), content, id, vocabulary);
    if (token.normalized) {
      Normalized text{content};
      normalizer.apply(text);
      token.normalized_content = text.text;
    }
    if (token.normalized_content.empty())
      fail(object.where(), ": nothing is left of '", content.substr(0, 64), "' after normalization");
    ids_[content] = static_cast<Token>(id);
    if (token.special) special_.insert(content);
    added_[static_cast<Token>(id)] = std::move(token);
    limit_ = std::max(limit_, static_cast<Index>(id) + 1);
  }
  raw_.emplace(trie(Stage::raw));
  normalized_.emplace(trie(Stage::normalized));
}

void AddedTokens::check_id(const std::string& where, const std::string& content, std::int64_t id,
                           const Vocabulary& vocabulary) const {
  const auto known = vocabulary.find(content);
  const auto again = ids_.find(content);
  Index expected = std::max(vocabulary.count(), limit_);
  if (known) expected = *known;
  if (again != ids_.end()) expected = again->second;
  if (expected != id)
    fail(where, ": token '", content.substr(0, 64), "' has id ", id, ", but its place in the vocabulary is ",
         expected);
}

Trie AddedTokens::trie(Stage stage) const {
  std::vector<std::pair<std::string_view, Token>> entries;
  for (const auto& [id, token] : added_)
    if (token.normalized == (stage == Stage::normalized)) entries.emplace_back(token.normalized_content, id);
  return Trie(std::move(entries));
}

std::vector<AddedTokens::Stretch> AddedTokens::find(std::string_view text, Stage stage) const {
  const auto& trie = stage == Stage::raw ? raw_ : normalized_;
  if (!trie) return {{{0, text.size()}, std::nullopt}};
  std::vector<Stretch> out;
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    Token token = -1;
    std::size_t after = at;
    Trie::Node node = Trie::kRoot;
    for (std::size_t end = at; end < text.size();) {
      node = trie->step(node, static_cast<unsigned char>(text[end++]));
      if (node == Trie::kNone) break;
      if (trie->token(node) < 0) continue;
      token = trie->token(node);
      after = end;
    }
    if (token < 0) {
      ++at;
      continue;
    }
    std::size_t begin = at;
    at = after;
    const Added& added = added_.at(token);
    if (added.single_word && (word_before(text, begin) || word_at(text, after))) continue;
    if (added.lstrip) begin = std::max(done, space_begin(text, begin, std::min(done, begin)));
    if (added.rstrip) after = space_end(text, after);
    if (done < begin) out.push_back({{done, begin}, std::nullopt});
    out.push_back({{begin, after}, token});
    done = after;
  }
  if (done != text.size()) out.push_back({{done, text.size()}, std::nullopt});
  return out;
}

std::optional<Token> AddedTokens::id(std::string_view content) const {
  const auto found = ids_.find(std::string(content));
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<std::string_view> AddedTokens::text(Token id) const {
  const auto found = added_.find(id);
  return found == added_.end() ? std::nullopt
                               : std::optional<std::string_view>(found->second.normalized_content);
}

bool AddedTokens::is_special(std::string_view text) const { return special_.contains(std::string(text)); }

}  // namespace plait
