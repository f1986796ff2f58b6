// Form A, a decayed sum of outer products, on the chunk grid:
//   S = diag(e^g) S + k (write v)^T;  o = S^T q
// (linear attention, gated linear attention, Mamba-2 and their relatives;
// layers/recurrent/gated_linear_attention.md).
#pragma once

#include <algorithm>
#include <vector>

#include "layers/recurrent/chunks.h"
#include "layers/recurrent/panels.h"
#include "runtime/base/arena.h"
#include "runtime/run/layer.h"

namespace plait {

class DecayedSum {
 public:
  enum class Decay { none, scalar, channelwise };
  struct Sizes {
    // Each state head has a key head (state_heads a multiple of key_heads). Several query heads read one
    // state, or several states are read by one query head: output head h uses query head h / (outputs /
    // query_heads) and state h / (outputs / state_heads), outputs = max(query_heads, state_heads).
    Index query_heads = 0, key_heads = 0, state_heads = 0;
    Index key = 0, value = 0;  // widths of one head
    Index chunk = 0;
    Decay decay = Decay::none;
    // Channels in front of each query's and key's own whose product is the root of the others': inside a
    // chunk q.k is its square, not a sum of terms of both signs. Not with channelwise decays.
    Index root = 0;
    Index outputs() const { return std::max(query_heads, state_heads); }
    Index row() const { return root + key; }  // columns of a head's query or key
  };
  // All rows of a batch; those the segments cover are read and written.
  struct Rows {
    View<const float> q;      // [rows, query_heads * row()], scale included
    View<const float> k;      // [rows, key_heads * row()]
    View<const float> v;      // [rows, state_heads * value]
    View<const float> g;      // log decay <= 0: [rows, state_heads], or [rows, key_heads * key] channelwise
    View<const float> write;  // [rows, state_heads]
    View<float> o;            // [rows, outputs * value]
  };
  struct Bound {  // one sequence's fields
    float *state, *keys, *values, *decays;
  };
  struct Past {  // the same of a chunk that is only read
    const float *state, *keys, *values, *decays;
  };

  DecayedSum() = default;
  // The core's fields are first_field and those after it in the layer's list.
  DecayedSum(const Sizes& sizes, Index first_field);
  // Anchor S [state_heads, ceil(value / 32), key, 32]; open k, x (write v), g.
  std::vector<Field> fields() const;

  void run(const Rows& rows, std::span<const Segment> segments, const Compute& compute) const;
  void fold(State& state, const Compute& compute) const;

  // For the walk over chunks.
  Index grid() const { return sizes_.chunk; }
  Index units() const { return sizes_.key_heads; }
  Index outputs() const { return sizes_.outputs(); }
  Bound bind(State& state) const;
  Past past(const Bound& b) const { return {b.state, b.keys, b.values, b.decays}; }
  Past past(const State& state, Index boundary) const;
  void absorb(const Bound& bound, const ChunkRows& part, Index key_head, const Rows& rows,
              const Kernels& k) const;
  void read(const Past& past, const ChunkRows& part, Index head, const Rows& rows, const Kernels& k) const;
  void fold(const Bound& bound, Index key_head, const Kernels& k) const;
  void edit_anchors(const Bound& bound, const StateEdit& edit, Index key_head, const Kernels& k) const;

 private:
  // Query heads of one key head: stacked [queries * n, row()], and weights [queries * n, end] on the open
  // rows.
  struct Group {
    const Past& past;
    const ChunkRows& part;
    const Rows& rows;
    View<float> queries;
    View<float>
        scores;  // q_i.k_j; with a channelwise decay the decays are in them and in the queries already
    Index count() const { return queries.rows / part.rows; }
  };
  // Heads of a group that read one state: `query` is the first one's place in the group, `output` in Rows::o.
  struct Readers {
    Index state, query, output, count;
  };
  Index states_per_key() const { return sizes_.state_heads / sizes_.key_heads; }
  Index queries_per_key() const { return sizes_.query_heads / sizes_.key_heads; }
  bool channelwise() const { return sizes_.decay == Decay::channelwise; }

  Index outputs_per_state() const { return sizes_.outputs() / sizes_.state_heads; }
  Index outputs_per_query() const { return sizes_.outputs() / sizes_.query_heads; }

  // The open rows that the rows become: what the heads of a key share, what is a state's own.
  void store_keys(const Bound& bound, const ChunkRows& part, Index key_head, const Rows& rows,
                  const Kernels& k) const;
  void store_values(const Bound& bound, const ChunkRows& part, Index state, const Rows& rows,
                    const Kernels& k) const;
  // The query heads [first, first + count) on the chunk of their key head.
  Group score_queries(const Past& past, const ChunkRows& part, Index first, Index count, const Rows& rows,
                      Arena::Scope& scope, const Kernels& k) const;
  void score_channels(const Group& in, Index key_head, const Kernels& k) const;
  void score_channels_of_row(const Group& in, Index i, const double* sums, View<const float> keys,
                             View<const float> shifted, const Kernels& k) const;
  void read_heads(const Group& in, const Readers& readers, const Kernels& k) const;
  void decay_reads(const Group& in, const Readers& readers, View<float> reads, View<float> weights,
                   const Kernels& k) const;
  // Folds the chunk's first `rows` rows.
  void fold_state(const Bound& bound, Index state, Index rows, const Kernels& k) const;
  // The chunk's first `rows` rows neither decay nor write any more.
  void clear_rows(const Bound& bound, Index state, Index rows) const;
  void decay_keys(const Bound& bound, Index key_head, View<float> keys, float* decay, const Kernels& k) const;

  Sizes sizes_;
  StateShape state_;
  Index stride_ = 0;  // of the open columns
  Index first_field_ = 0;
};

}  // namespace plait
