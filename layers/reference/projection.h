// Settings, tensors and the double-precision form of the projection stage that the attention kinds share:
// queries, keys and values of grouped heads, with per-head norm and rotary embedding
// (layers/attention/projection.h).
#pragma once

#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "layers/reference/rope.h"
#include "runtime/base/tensor.h"
#include "runtime/graph/config.h"

namespace plait {

struct QkNormSettings {
  enum class Type { rms, layer };
  enum class Form { plain, one_plus };
  Type type = Type::rms;
  double eps = 1e-6;
  Form form = Form::plain;
  bool per_head = false;  // gains of every head, not one vector for all
  bool bias = false;      // of a layer norm
};

// Structured matrices in place of q and k (arXiv 2509.07963). Tensor q_<l> or k_<l> of level l = 0, 1, ..
// holds 2^l blocks, block b of which reads the b-th of 2^l slices of x: [2^l, heads * ranks[l], width / 2^l].
// A head has the levels one after the other, inside a level component r of block b at r * 2^l + b.
struct MultiLevelQk {
  std::vector<Index> ranks;
};
// The query of every head is x, and its key a block tensor train of x: btt_k [a, heads * b * rank, b], then
// btt_q [heads * b, a, a * rank], with width = a b.
struct BlockTrainKeys {
  Index a = 0, b = 0, rank = 1;
};

struct ProjectionSettings {
  Index width = 0;
  Index num_heads = 0, num_kv_heads = 0, head_dim = 0, value_head_dim = 0;
  std::optional<RopeSettings> rope;
  Index rope_slices = 1;  // parts of a head that rope turns as heads of their own
  std::optional<QkNormSettings> qk_norm;
  std::vector<Index> norm_groups;  // columns of a head that are normed apart; empty = the whole head
  std::variant<std::monostate, MultiLevelQk, BlockTrainKeys> structure;
  std::vector<double> query_factors;  // per column of a query head, behind norm and rope; empty = 1
  bool bias = false;
  double input_multiplier = 1;  // of x, in front of Wq, Wk, Wv; biases are not scaled
  double key_multiplier = 1;    // of the keys, behind their bias
  bool shift = false;           // keys and values are mixed with those of the token before
  Index packed_gate = 0;        // gate rows of a head inside q
  bool gate_behind_group =
      false;                 // they stand behind the queries of a key head's group, not behind each query
  Index keys_per_value = 1;  // key heads that share a value head

  Index num_value_heads() const { return num_kv_heads / keys_per_value; }
  Index group() const { return num_heads / num_kv_heads; }  // query head h uses key/value head h / group()
  // Query heads whose rows stand together in q, their gates behind them.
  Index packed_heads() const { return gate_behind_group ? group() : 1; }
  Index query_rows() const { return num_heads * (head_dim + packed_gate); }
  bool queries_are_inputs() const { return std::holds_alternative<BlockTrainKeys>(structure); }
};

// Keys num_heads .. value_head_dim; does not call finish().
ProjectionSettings read_heads(Config& config);
std::optional<QkNormSettings> read_qk_norm(Config& config);
// Heads, rope and qk_norm.
ProjectionSettings read_projection(Config& config);
// Key cache: what cached keys and values are rounded to; does not call finish().
DType read_cache(Config& config);
// q, k, v, then q_norm, k_norm, biases and the gates of the shift as the settings ask.
std::vector<TensorSpec> projection_tensors(const ProjectionSettings& settings);
// Gain and bias of the norm of query or key heads that `name` starts with: <name>_norm, <name>_norm_bias, as
// qk_norm asks; `all` says in words what columns all heads have.
std::vector<TensorSpec> norm_tensors(const ProjectionSettings& settings, const std::string& name, Index heads,
                                     const char* all);

// The projection stage of the twins.
class ProjectionTwin {
 public:
  ProjectionTwin(const ProjectionSettings& settings, const Parameters& parameters);

  struct Rows {
    std::vector<double> q;     // [tokens, num_heads * head_dim]
    std::vector<double> k;     // [tokens, num_kv_heads * head_dim]
    std::vector<double> v;     // [tokens, num_value_heads() * value_head_dim]
    std::vector<double> gate;  // [tokens, num_heads * packed_gate]
  };
  // x [tokens, width], token t at position t
  Rows run(View<const double> x) const;

 private:
  // of queries or keys, by the structure
  std::vector<double> structured(View<const double> x, const std::string& name, Index heads) const;
  // u_t := a_t u_(t-1) + (1 - a_t) u_t, a_t = sigmoid(gate x_t) per head; u_(-1) = 0
  void shift(View<const double> x, const std::vector<double>& gate, Index heads,
             std::vector<double>& rows) const;

  ProjectionSettings settings_;
  std::vector<double> q_, k_, v_, q_bias_, k_bias_, v_bias_, q_norm_, k_norm_, q_norm_bias_, k_norm_bias_;
  std::vector<double> k_shift_, v_shift_;
  std::map<std::string, std::vector<double>> blocks_;  // tensors of the structure
};

// Every value as a cache of that type holds it: to nearest even, f32 as it is.
void round_cached(DType cache, std::vector<double>& values);
// Norm, unless gain is empty, and rope, if there is one: rows [tokens, heads * head_dim], token t at position
// t; bias may be empty.
void norm_and_rotate(const ProjectionSettings& settings, Index tokens, Index heads,
                     const std::vector<double>& gain, const std::vector<double>& bias,
                     std::vector<double>& rows);
// y = x W' + b into a fresh [x.rows, out]; bias may be empty.
std::vector<double> project(View<const double> x, const std::vector<double>& weight,
                            const std::vector<double>& bias, Index out);
// The tensor of that name in double, empty if the node has none.
std::vector<double> optional_tensor(const Parameters& parameters, const std::string& name);

}  // namespace plait
