// Published families. A reader turns a checkpoint's configuration into a card and a map of its tensors, and
// does nothing else; after that no code knows the family.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/base/view.h"
#include "weights/families/source_config.h"

namespace plait {

// Rows [row, row + rows) of tensor `tensor` of node `node` are the rows of the published tensor that begin at
// `published_row`. A row is everything behind the first dimension: [channels, 1, taps] and [channels, taps]
// have the same rows.
struct TensorSlice {
  std::string published;
  Index published_row = 0;
  std::string node, tensor;
  Index row = 0, rows = 0;
};

// A constant factor of those rows of a node's tensor, applied where multipliers are folded into weights.
struct Fold {
  std::string node, tensor;
  Index row = 0, rows = 0;
  double factor = 1;
};

// Which published tensor is what; the same map is read in both directions.
struct TensorMap {
  std::map<std::string, Shape> published;  // every tensor that is read, with the shape it must have
  std::vector<TensorSlice> slices;
  std::vector<Fold> folds;
  std::vector<std::string> skipped;  // prefixes of published tensors that are left out

  struct Part {
    std::string tensor;
    Index rows;
  };
  // Published tensor `name` is one tensor of a node ..
  void whole(const std::string& name, const Shape& shape, const std::string& node, const std::string& tensor);
  // .. or several, one below the other.
  void stacked(const std::string& name, const Shape& shape, const std::string& node,
               const std::vector<Part>& parts);
  // Does nothing for factor 1.
  void fold(const std::string& node, const std::string& tensor, Index row, Index rows, double factor);
};

struct Reading {
  Json card;
  TensorMap map;
};

struct Family {
  std::string name;                      // the card's `family`
  std::vector<std::string> model_types;  // values of config.json's `model_type`
  // `names`: the published tensors. Some choices are theirs (tied head, prefix, optional parts).
  Reading (*read)(SourceConfig& config, const std::set<std::string>& names);
  // The configuration of the same model with its multipliers folded into the weights, all that can be.
  Json (*folded)(const Json& config, const std::set<std::string>& names);
};

// By `model_type` of a configuration; throws Error listing the known ones. `where`: "file 'x/config.json'".
const Family& find_family(const Json& config, const std::string& where);

// What readers share.

// 'num_hidden_layers', of which a model has a few thousand at most; without a `fallback` there is no default.
Index read_layer_count(SourceConfig& config, std::optional<Index> fallback);

// Rotary settings: top level, `rope_parameters` or a non-null `rope_scaling` (which replaces it); only the
// plain rule. No default for theta. `partial` is the part of the head that is rotated where no key says so.
struct RopeKeys {
  double theta = 0, partial = 1;
};
RopeKeys read_rope_keys(SourceConfig& config, double partial);

// Whether the head is tied: no head tensor among `names`. Throws if a flag that is present says otherwise.
enum class Head { own, tied };
Head read_head(SourceConfig& config, const std::string& head, const std::set<std::string>& names);

// Embedding, final norm and head, tied or not: their tensors, and the card's `head`.
struct EndNames {
  std::string embedding, norm, head;
};
void map_ends(Reading& reading, Index vocab, Index width, const EndNames& names, Head head);

// gate_proj, up_proj, down_proj behind `from`, as node `node` of kind gated_mlp.
void map_gated_mlp(TensorMap& map, Index width, Index hidden, const std::string& from,
                   const std::string& node);

// Tensors that are stored under nodes outside the graph, for a later use the card names by `group`.
void keep_aside(Reading& reading, const std::string& group, const TensorMap& map);

}  // namespace plait
