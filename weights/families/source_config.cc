#include "weights/families/source_config.h"

#include <cmath>

#include "runtime/base/error.h"
#include "weights/json_text.h"

namespace plait {
namespace {

constexpr Index kMaxSize = Index{1} << 24;  // a product of two counts

std::string shown(const Json& value) { return printable(value.dump()); }

}  // namespace

SourceConfig::SourceConfig(const Json& object, std::string where, std::vector<std::string>& notes)
    : object_(&object), where_(std::move(where)), notes_(&notes) {
  if (!object.is_object()) fail(where_, " must hold a JSON object, found ", shown(object));
}

bool SourceConfig::has(const std::string& key) const {
  const auto found = object_->find(key);
  return found != object_->end() && !found->is_null();
}

const Json* SourceConfig::take(const std::string& key) {
  known_.insert(key);
  return has(key) ? &object_->at(key) : nullptr;
}

const Json& SourceConfig::require(const std::string& key) {
  const Json* value = take(key);
  if (!value) fail(where_, " lacks the key '", key, "', which has no default");
  return *value;
}

void SourceConfig::note_default(const std::string& key, const Json& value) {
  note(cat(where_, " lacks '", key, "'; taken as ", value.dump()));
}

Index SourceConfig::whole(const std::string& key, const Json& value, Index low) const {
  const bool whole = value.is_number_integer();
  if (!whole || (!value.is_number_unsigned() && value.get<std::int64_t>() < low) ||
      value.get<std::uint64_t>() < static_cast<std::uint64_t>(low) ||
      value.get<std::uint64_t>() > static_cast<std::uint64_t>(kMaxSize))
    fail(where_, ": '", key, "' must be a whole number from ", low, " to ", kMaxSize, ", found ",
         shown(value));
  return value.get<Index>();
}

double SourceConfig::finite(const std::string& key, const Json& value) const {
  if (!value.is_number() || !std::isfinite(value.get<double>()))
    fail(where_, ": '", key, "' must be a number, found ", shown(value));
  return value.get<double>();
}

Index SourceConfig::size(const std::string& key, Index low) { return whole(key, require(key), low); }

Index SourceConfig::size_or(const std::string& key, Index fallback, Index low) {
  if (const Json* value = take(key)) return whole(key, *value, low);
  note_default(key, fallback);
  return fallback;
}

double SourceConfig::number(const std::string& key) { return finite(key, require(key)); }

double SourceConfig::number_or(const std::string& key, double fallback) {
  if (const Json* value = take(key)) return finite(key, *value);
  note_default(key, fallback);
  return fallback;
}

bool SourceConfig::flag(const std::string& key) {
  const Json& value = require(key);
  if (!value.is_boolean()) fail(where_, ": '", key, "' must be true or false, found ", shown(value));
  return value.get<bool>();
}

bool SourceConfig::flag_or(const std::string& key, bool fallback) {
  if (has(key)) return flag(key);
  take(key);
  note_default(key, fallback);
  return fallback;
}

std::string SourceConfig::text(const std::string& key) {
  const Json& value = require(key);
  if (!value.is_string()) fail(where_, ": '", key, "' must be a text, found ", shown(value));
  return value.get<std::string>();
}

std::vector<std::string> SourceConfig::texts(const std::string& key) {
  const Json& value = require(key);
  std::vector<std::string> all;
  if (!value.is_array()) fail(where_, ": '", key, "' must be a list of texts, found ", shown(value));
  for (const Json& item : value) {
    if (!item.is_string())
      fail(where_, ": '", key, "' must be a list of texts, found ", shown(item), " in it");
    all.push_back(item.get<std::string>());
  }
  return all;
}

std::vector<double> SourceConfig::numbers_or(const std::string& key, const std::vector<double>& fallback) {
  const Json* value = take(key);
  if (!value) {
    note_default(key, fallback);
    return fallback;
  }
  if (!value->is_array() || value->size() != fallback.size())
    fail(where_, ": '", key, "' must be a list of ", fallback.size(), " numbers, found ", shown(*value));
  std::vector<double> all;
  for (const Json& item : *value) all.push_back(finite(key, item));
  return all;
}

SourceConfig SourceConfig::object(const std::string& key) {
  return {require(key), cat(where_, ", '", key, "'"), *notes_};
}

const Json& SourceConfig::raw(const std::string& key) {
  static const Json kNull;
  const Json* value = take(key);
  return value ? *value : kNull;
}

void SourceConfig::only(const std::string& key, const Json& value) {
  const Json* found = take(key);
  if (found && *found != value)
    fail(where_, ": '", key, "' is ", shown(*found), ", but this family is only known with ", value.dump());
}

void SourceConfig::harmless(std::initializer_list<const char*> keys) {
  known_.insert(keys.begin(), keys.end());
}

void SourceConfig::harmless_everywhere() {
  harmless({"_attn_implementation_autoset",
            "_name_or_path",
            "architectures",
            "attention_dropout",
            "bos_token_id",
            "dtype",
            "eos_token_id",
            "id2label",
            "initializer_range",
            "label2id",
            "max_position_embeddings",
            "model_type",
            "num_logits_to_keep",
            "output_attentions",
            "output_hidden_states",
            "pad_token_id",
            "problem_type",
            "return_dict",
            "torch_dtype",
            "transformers_version",
            "use_cache"});
  only("chunk_size_feed_forward", 0);
  only("is_encoder_decoder", false);
}

void SourceConfig::finish() const {
  for (const auto& [key, value] : object_->items())
    if (!value.is_null() && !known_.contains(key))
      fail(where_, " has the key '", printable(key), "' (", shown(value),
           "), which plait does not know for this family; it may change what the model computes");
}

Json parse_config(const std::string& text, const std::string& what) {
  constexpr std::string_view kWord = "Infinity";
  std::string plain;
  bool quoted = false;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (quoted && c == '\\' && at + 1 < text.size()) {
      plain += {c, text[++at]};
      continue;
    }
    if (c == '"') quoted = !quoted;
    if (!quoted && std::string_view(text).substr(at, kWord.size()) == kWord) {
      plain += R"({"__float__":"Infinity"})";
      at += kWord.size() - 1;
    } else {
      plain += c;
    }
  }
  return parse_json(plain, what);
}

}  // namespace plait
