#include "runtime/text/vocabulary.h"

#include <functional>

#include "runtime/base/error.h"

namespace plait {
namespace {

std::size_t hash_of(std::string_view text) { return std::hash<std::string_view>()(text); }

}  // namespace

void Vocabulary::add(std::string_view text, std::int64_t id, const std::string& where) {
  if (id < 0 || id > kMaxToken)
    fail(where, ": token '", text.substr(0, 64), "' has id ", id, "; ids go from 0 to ", kMaxToken);
  if (texts_.size() + text.size() > UINT32_MAX) fail(where, ": the texts of the tokens exceed 4 GiB");
  const auto place = static_cast<std::size_t>(id);
  if (place >= places_.size()) places_.resize(place + 1);
  if (places_[place].used)
    fail(where, ": tokens '", this->text(static_cast<Token>(id)).substr(0, 64), "' and '", text.substr(0, 64),
         "' both have id ", id);
  places_[place] = {static_cast<std::uint32_t>(texts_.size()), static_cast<std::uint32_t>(text.size()), true};
  texts_ += text;
  ++count_;
  if (static_cast<std::size_t>(count_) * 2 > table_.size()) grow();
  insert(static_cast<Token>(id));
}

void Vocabulary::reserve(Index tokens, std::size_t bytes) {
  texts_.reserve(bytes);
  places_.reserve(static_cast<std::size_t>(tokens));
  while (table_.size() < 2 * static_cast<std::size_t>(tokens)) grow();
}

void Vocabulary::grow() {
  const std::vector<Token> old = std::move(table_);
  table_.assign(old.empty() ? 1024 : 2 * old.size(), -1);
  for (const Token id : old)
    if (id >= 0) insert(id);
}

void Vocabulary::insert(Token id) {
  const std::size_t mask = table_.size() - 1;
  std::size_t slot = hash_of(text(id)) & mask;
  while (table_[slot] >= 0 && text(table_[slot]) != text(id)) slot = (slot + 1) & mask;
  table_[slot] = id;
}

std::optional<Token> Vocabulary::find(std::string_view wanted) const {
  if (table_.empty()) return std::nullopt;
  const std::size_t mask = table_.size() - 1;
  for (std::size_t slot = hash_of(wanted) & mask; table_[slot] >= 0; slot = (slot + 1) & mask)
    if (text(table_[slot]) == wanted) return table_[slot];
  return std::nullopt;
}

bool Vocabulary::has(Token id) const {
  return id >= 0 && id < limit() && places_[static_cast<std::size_t>(id)].used;
}

std::string_view Vocabulary::text(Token id) const {
  if (id < 0 || id >= limit()) return {};
  const Place& place = places_[static_cast<std::size_t>(id)];
  return std::string_view(texts_).substr(place.begin, place.length);
}

}  // namespace plait
