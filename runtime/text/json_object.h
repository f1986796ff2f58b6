// An object of a tokenizer's files, read key by key: unknown keys are errors, as everywhere in plait.
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "runtime/text/tokenizer.h"

namespace plait {

class JsonObject {
 public:
  // Borrows `json`. Throws Error unless it is an object. `where` names it in sentences: "tokenizer.json:
  // normalizer".
  JsonObject(const nlohmann::json& json, std::string where);

  const std::string& where() const { return where_; }
  std::string type() { return text("type"); }
  bool has(const std::string& key);  // present and not null; the key counts as read
  const nlohmann::json& at(const std::string& key);
  std::string text(const std::string& key);
  bool flag(const std::string& key);
  bool flag_or(const std::string& key, bool absent) { return has(key) ? flag(key) : absent; }
  std::string text_or(const std::string& key, const std::string& absent) {
    return has(key) ? text(key) : absent;
  }
  std::int64_t integer(const std::string& key, std::int64_t low, std::int64_t high);
  const nlohmann::json& array(const std::string& key);
  void finish() const;  // throws Error naming a key nobody has read

 private:
  const nlohmann::json& json_;
  std::string where_;
  std::set<std::string> read_;
};

// Throws Error naming `where` and the place of a mistake, or a nesting deeper than 64.
nlohmann::json parse_tokenizer_json(const std::string& text, const std::string& where);
// The object in one of a tokenizer's files; an empty one if there is no such file. Throws Error naming
// `origin` and the file if it holds anything else.
nlohmann::json tokenizer_object(const TokenizerFiles& files, const std::string& name,
                                const std::string& origin);

}  // namespace plait
