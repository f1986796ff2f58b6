#include "weights/families/family.h"

#include <array>

#include "runtime/base/error.h"
#include "weights/families/falcon_h1.h"
#include "weights/families/plait_card.h"
#include "weights/families/qwen2.h"
#include "weights/families/qwen3_5.h"
#include "weights/json_text.h"

namespace plait {

void TensorMap::whole(const std::string& name, const Shape& shape, const std::string& node,
                      const std::string& tensor) {
  stacked(name, shape, node, {{tensor, shape.at(0)}});
}

void TensorMap::stacked(const std::string& name, const Shape& shape, const std::string& node,
                        const std::vector<Part>& parts) {
  published[name] = shape;
  Index at = 0;
  for (const Part& part : parts) {
    slices.push_back({name, at, node, part.tensor, 0, part.rows});
    at += part.rows;
  }
}

void TensorMap::fold(const std::string& node, const std::string& tensor, Index row, Index rows,
                     double factor) {
  if (factor != 1) folds.push_back({node, tensor, row, rows, factor});
}

const Family& find_family(const Json& config, const std::string& where) {
  static const std::array<Family, 4> kFamilies = {qwen3_5_family(), falcon_h1_family(), qwen2_family(),
                                                  plait_card_family()};
  std::string known;
  if (!config.is_object()) fail(where, " must hold a JSON object, found ", printable(config.dump()));
  const auto type = config.find("model_type");
  for (const Family& family : kFamilies)
    for (const std::string& name : family.model_types) {
      if (type != config.end() && *type == name) return family;
      known += cat(known.empty() ? "" : ", ", name);
    }
  if (type == config.end()) fail(where, " lacks the key 'model_type'; plait reads ", known);
  fail(where, ": model_type ", printable(type->dump()), " is of no family plait reads; it reads ", known);
}

namespace {

// A rope key may stand in two places, which must agree.
double rope_number(SourceConfig& config, SourceConfig* rope, const std::string& key, const double* fallback) {
  const bool outer = config.has(key), inner = rope && rope->has(key);
  if (outer && inner && config.number(key) != rope->number(key))
    fail(config.where(), ": '", key, "' is ", config.number(key), ", but ", rope->where(), " says ",
         rope->number(key));
  if (inner) return config.raw(key), rope->number(key);
  return fallback ? config.number_or(key, *fallback) : config.number(key);
}

}  // namespace

RopeKeys read_rope_keys(SourceConfig& config, double partial) {
  const char* place = config.has("rope_scaling") ? "rope_scaling" : "rope_parameters";
  config.harmless({"rope_scaling", "rope_parameters"});
  std::optional<SourceConfig> rope;
  if (config.has(place)) rope.emplace(config.object(place));
  if (rope) {
    rope->only("rope_type", "default");
    rope->only("type", "default");
    // Where text positions are equal in all three rows, sections mean nothing; their order is fixed.
    rope->harmless({"mrope_section"});
    rope->only("mrope_interleaved", true);
  }
  SourceConfig* inner = rope ? &*rope : nullptr;
  RopeKeys keys;
  keys.theta = rope_number(config, inner, "rope_theta", nullptr);
  if (keys.theta <= 0) fail(config.where(), ": 'rope_theta' must be positive, found ", keys.theta);
  if (partial < 1)
    keys.partial = rope_number(config, inner, "partial_rotary_factor", &partial);
  else
    config.only("partial_rotary_factor", 1.0), inner ? inner->only("partial_rotary_factor", 1.0) : void();
  if (rope) rope->finish();
  return keys;
}

Head read_head(SourceConfig& config, const std::string& head, const std::set<std::string>& names) {
  const bool tied = !names.contains(head);
  const Json& flag = config.raw("tie_word_embeddings");
  if (!flag.is_null() && flag != Json(tied))
    fail(config.where(), ": 'tie_word_embeddings' is ", printable(flag.dump()), ", but tensor '", head,
         "' is ", tied ? "absent" : "present");
  return tied ? Head::tied : Head::own;
}

Index read_layer_count(SourceConfig& config, std::optional<Index> fallback) {
  constexpr Index kMaxLayers = 4096;
  const Index count =
      fallback ? config.size_or("num_hidden_layers", *fallback) : config.size("num_hidden_layers");
  if (count > kMaxLayers)
    fail(config.where(), ": 'num_hidden_layers' is ", count, ", at most ", kMaxLayers, " are read");
  return count;
}

void map_ends(Reading& reading, Index vocab, Index width, const EndNames& names, Head head) {
  TensorMap& map = reading.map;
  map.whole(names.embedding, {vocab, width}, "embed", "weight");
  map.whole(names.norm, {width}, "final_norm", "weight");
  if (head == Head::own) map.whole(names.head, {vocab, width}, "head", "weight");
  reading.card["head"] = head == Head::own ? Json::object() : Json{{"tied", "embed"}};
}

void map_gated_mlp(TensorMap& map, Index width, Index hidden, const std::string& from,
                   const std::string& node) {
  map.whole(from + "gate_proj.weight", {hidden, width}, node, "gate");
  map.whole(from + "up_proj.weight", {hidden, width}, node, "up");
  map.whole(from + "down_proj.weight", {width, hidden}, node, "down");
}

void keep_aside(Reading& reading, const std::string& group, const TensorMap& map) {
  Json& aside = reading.card["aside"][group];
  for (const TensorSlice& slice : map.slices) {
    Shape shape = map.published.at(slice.published);
    shape[0] = slice.rows;
    aside[slice.node][slice.tensor] = shape;
  }
  reading.map.published.insert(map.published.begin(), map.published.end());
  reading.map.slices.insert(reading.map.slices.end(), map.slices.begin(), map.slices.end());
}

}  // namespace plait
