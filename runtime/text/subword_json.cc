#include "runtime/text/subword_json.h"

#include <cmath>

#include "runtime/base/error.h"
#include "runtime/text/json_object.h"
#include "runtime/text/unigram.h"
#include "runtime/text/word_piece.h"

namespace plait {
namespace {

// {"the": 5, ..}
Vocabulary read_vocabulary(JsonObject& object) {
  const auto& json = object.at("vocab");
  if (!json.is_object()) fail(object.where(), ": 'vocab' must be a JSON object, found ", json.type_name());
  Vocabulary vocabulary;
  for (const auto& [text, id] : json.items()) {
    if (!id.is_number_integer())
      fail(object.where(), ": token '", text.substr(0, 64), "' has the id ", id.dump().substr(0, 40),
           ", which is no whole number");
    vocabulary.add(
        text, id.is_number_unsigned() && id.get<std::uint64_t>() > INT64_MAX ? -1 : id.get<std::int64_t>(),
        object.where());
  }
  return vocabulary;
}

Token known(const Vocabulary& vocabulary, const std::string& text, const std::string& where,
            const char* what) {
  const auto id = vocabulary.find(text);
  if (!id) fail(where, ": ", what, " '", text.substr(0, 64), "' is not in the vocabulary");
  return *id;
}

// "a b" or ["a", "b"]
std::pair<std::string, std::string> read_pair(const nlohmann::json& json, const std::string& where,
                                              std::size_t rank) {
  if (json.is_array() && json.size() == 2 && json[0].is_string() && json[1].is_string())
    return {json[0].get<std::string>(), json[1].get<std::string>()};
  if (json.is_string()) {
    const auto& text = json.get_ref<const std::string&>();
    const std::size_t space = text.find(' ');
    if (space != text.npos && text.find(' ', space + 1) == text.npos)
      return {text.substr(0, space), text.substr(space + 1)};
  }
  fail(where, ": merge ", rank, " is not two tokens: ",
       json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(0, 80));
}

std::vector<Merge> read_merges(JsonObject& object, const Vocabulary& vocabulary, const std::string& prefix) {
  std::vector<Merge> merges;
  const auto& list = object.array("merges");
  merges.reserve(list.size());
  const bool lines = !list.empty() && list[0].is_string();
  for (const auto& item : list) {
    if (lines && item.is_string() && item.get_ref<const std::string&>().starts_with("#version")) continue;
    const auto [left, right] = read_pair(item, object.where(), merges.size());
    if (right.size() < prefix.size())
      fail(object.where(), ": merge ", merges.size(), " has '", right.substr(0, 64),
           "' on its right, without the prefix '", prefix.substr(0, 64), "'");
    const auto token = [&](const std::string& text) {
      return known(vocabulary, text, object.where(), cat("merge ", merges.size(), ":").c_str());
    };
    merges.push_back({token(left), token(right), token(left + right.substr(prefix.size()))});
  }
  return merges;
}

// [["the", -3.2], ..]
std::vector<double> read_scores(JsonObject& object, Vocabulary& vocabulary) {
  std::vector<double> scores;
  for (const auto& item : object.array("vocab")) {
    const bool good = item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_number() &&
                      std::isfinite(item[1].get<double>());
    if (!good) fail(object.where(), ": token ", scores.size(), " is not a text and a finite score");
    vocabulary.add(item[0].get_ref<const std::string&>(), static_cast<std::int64_t>(scores.size()),
                   object.where());
    scores.push_back(item[1].get<double>());
  }
  return scores;
}

std::unique_ptr<const Subword> byte_pair(JsonObject& object, SubwordTables tables) {
  if (object.has("dropout") && object.at("dropout") != 0)
    fail(object.where(), ": dropout ", object.at("dropout").dump().substr(0, 40),
         " makes tokens random; only null and 0 are read");
  BytePairOptions options;
  options.prefix = object.text_or("continuing_subword_prefix", "");
  options.suffix = object.text_or("end_of_word_suffix", "");
  options.fuse_unknown = object.flag_or("fuse_unk", false);
  options.byte_fallback = object.flag_or("byte_fallback", false);
  options.ignore_merges = object.flag_or("ignore_merges", false);
  if (object.has("unk_token"))
    options.unknown = known(tables.vocabulary, object.text("unk_token"), object.where(), "the unknown token");
  return std::make_unique<BytePair>(std::move(tables.vocabulary), tables.merges, std::move(options));
}

std::unique_ptr<const Subword> unigram(JsonObject& object, SubwordTables tables) {
  const auto count = static_cast<Index>(tables.scores.size());
  if (count != tables.vocabulary.limit() || count != tables.vocabulary.count())
    fail(object.where(), ": ", tables.vocabulary.count(), " tokens have ", count, " scores");
  std::optional<Token> unknown;
  if (object.has("unk_id")) unknown = static_cast<Token>(object.integer("unk_id", 0, count - 1));
  const bool bytes = object.flag_or("byte_fallback", false);
  return std::make_unique<Unigram>(std::move(tables.vocabulary), std::move(tables.scores), unknown,
                                   bytes ? Unigram::Fallback::bytes : Unigram::Fallback::none);
}

std::unique_ptr<const Subword> word_piece(JsonObject& object, SubwordTables tables) {
  WordPieceOptions options;
  options.prefix = object.text("continuing_subword_prefix");
  options.longest_word = object.integer("max_input_chars_per_word", 0, INT32_MAX);
  options.unknown = known(tables.vocabulary, object.text("unk_token"), object.where(), "the unknown token");
  return std::make_unique<WordPiece>(std::move(tables.vocabulary), std::move(options));
}

// Files of old versions have no type; they are told apart by their keys.
std::string type_of(JsonObject& object) {
  if (object.has("type")) return object.text("type");
  if (object.has("merges")) return "BPE";
  if (object.has("unk_id")) return "Unigram";
  return object.has("max_input_chars_per_word") ? "WordPiece" : object.text("type");
}

}  // namespace

SubwordTables take_tables(nlohmann::json& json, const std::string& where) {
  JsonObject object(json, where);
  const std::string type = type_of(object);
  SubwordTables tables;
  if (type == "Unigram") {
    tables.scores = read_scores(object, tables.vocabulary);
  } else if (type == "BPE" || type == "WordPiece") {
    tables.vocabulary = read_vocabulary(object);
    if (type == "BPE")
      tables.merges = read_merges(object, tables.vocabulary, object.text_or("continuing_subword_prefix", ""));
  } else {
    return tables;
  }
  json["type"] = type;
  json.erase("vocab");
  if (type == "BPE") json.erase("merges");
  return tables;
}

std::unique_ptr<const Subword> make_subword(const nlohmann::json& json, SubwordTables tables,
                                            const std::string& where) {
  JsonObject object(json, where);
  const std::string type = object.type();
  std::unique_ptr<const Subword> made;
  if (type == "BPE")
    made = byte_pair(object, std::move(tables));
  else if (type == "Unigram")
    made = unigram(object, std::move(tables));
  else if (type == "WordPiece")
    made = word_piece(object, std::move(tables));
  else
    fail(where, ": this plait does not know the model '", type.substr(0, 64), "'");
  object.finish();
  return made;
}

}  // namespace plait
