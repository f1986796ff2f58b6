#include "runtime/text/post_processor.h"

#include "runtime/base/error.h"
#include "runtime/text/json_object.h"

namespace plait {
namespace {

// ["[SEP]", 102]
Token named_id(JsonObject& object, const std::string& key, Index limit) {
  const auto& pair = object.array(key);
  const bool good = pair.size() == 2 && pair[0].is_string() && pair[1].is_number_integer();
  if (!good || pair[1].get<std::int64_t>() < 0 || pair[1].get<std::int64_t>() >= limit)
    fail(object.where(), ": '", key, "' must be a text and an id below ", limit, ", found ",
         pair.dump().substr(0, 80));
  return pair[1].get<Token>();
}

std::vector<Token> special_ids(JsonObject& specials, const std::string& name, Index limit) {
  JsonObject special(specials.at(name), cat(specials.where(), ".", name.substr(0, 64)));
  special.text("id");
  special.array("tokens");
  std::vector<Token> ids;
  for (const auto& id : special.array("ids")) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() >= limit)
      fail(special.where(), ": 'ids' must be ids below ", limit, ", found ", id.dump().substr(0, 40));
    ids.push_back(id.get<Token>());
  }
  special.finish();
  return ids;
}

// The template for one text: special tokens around one {"Sequence": ..}.
PostProcessor from_template(JsonObject& object, Index limit) {
  JsonObject specials(object.at("special_tokens"), object.where() + ".special_tokens");
  object.has("pair");  // for two texts, which plait does not encode
  PostProcessor out;
  bool behind = false;
  for (const auto& item : object.array("single")) {
    JsonObject piece(item, object.where() + ".single");
    if (piece.has("Sequence")) {
      JsonObject sequence(piece.at("Sequence"), object.where() + ".single.Sequence");
      const std::string id = sequence.text("id");
      if (behind || id != "A")
        fail(object.where(), ": the template for one text must have the text once, as 'A'");
      behind = true;
    } else {
      JsonObject special(piece.at("SpecialToken"), object.where() + ".single.SpecialToken");
      auto& side = behind ? out.after : out.before;
      for (const Token id : special_ids(specials, special.text("id"), limit)) side.push_back(id);
    }
    piece.finish();
  }
  if (!behind) fail(object.where(), ": the template for one text has no place for the text");
  return out;
}

PostProcessor from_sequence(JsonObject& object, Index limit) {
  PostProcessor out;
  std::size_t count = 0;
  bool templated = false;  // tokenizers then takes text and added tokens for several texts
  for (const auto& item : object.array("processors")) {
    const std::string where = cat(object.where(), ".processors[", count++, "]");
    const PostProcessor outer = make_post_processor(item, where, limit);
    const bool adds = !outer.before.empty() || !outer.after.empty();
    if (adds && templated) fail(where, ": this plait does not read a processor behind a TemplateProcessing");
    templated |= adds && (item["type"] == "TemplateProcessing" || item["type"] == "Sequence");
    out.before.insert(out.before.begin(), outer.before.begin(), outer.before.end());
    out.after.insert(out.after.end(), outer.after.begin(), outer.after.end());
  }
  return out;
}

PostProcessor by_type(const std::string& type, JsonObject& object, Index limit) {
  const auto offsets_only = [&] {  // these keys move offsets, which plait does not have
    object.flag_or("trim_offsets", true);
    object.flag_or("add_prefix_space", true);
    object.flag_or("use_regex", true);
  };
  if (type == "TemplateProcessing") return from_template(object, limit);
  if (type == "Sequence") return from_sequence(object, limit);
  if (type == "ByteLevel") {
    offsets_only();
    return {};
  }
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    if (type == "RobertaProcessing") offsets_only();
    return {{named_id(object, "cls", limit)}, {named_id(object, "sep", limit)}};
  }
  fail(object.where(), ": this plait does not know the post-processor '", type.substr(0, 64), "'");
}

}  // namespace

PostProcessor make_post_processor(const nlohmann::json& json, const std::string& where, Index limit) {
  if (json.is_null()) return {};
  JsonObject object(json, where);
  const std::string type = object.type();
  PostProcessor made = by_type(type, object, limit);
  object.finish();
  return made;
}

}  // namespace plait
