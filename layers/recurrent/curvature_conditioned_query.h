// A part of the recurrent kinds that have a key for every token: the query contracted along directions with
// many keys before it reads the state (Le et al., arXiv 2606.01294; curvature_conditioned_query.md).
//   C = e^g C + w k k',  m = e^g m + w k,  n = e^g n + w;  q~ = q - lambda Sigma q
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "layers/recurrent/chunks.h"
#include "layers/recurrent/decayed_sum.h"
#include "layers/recurrent/key_gram.h"
#include "layers/reference/curvature_conditioned_query.h"
#include "runtime/base/arena.h"
#include "runtime/run/layer.h"

namespace plait {

class Curvature {
 public:
  using Decay = DecayedSum::Decay;
  struct Sizes {  // heads as in DecayedSum::Sizes
    Index query_heads = 0, key_heads = 0, state_heads = 0;
    Index key = 0;
    Index chunk = 0;
    Decay decay = Decay::none;
    Index outputs() const { return std::max(query_heads, state_heads); }
  };
  // All rows of a batch; those the segments cover are read and written.
  struct Rows {
    View<const float> q;      // [rows, query_heads * key]
    View<const float> k;      // [rows, key_heads * key]
    View<const float> g;      // log decays as in DecayedSum::Rows
    View<const float> write;  // [rows, state_heads] 1, or 0 for a row whose key does not count
    View<float> conditioned;  // [rows, outputs * key]
  };
  struct Bound {  // one sequence's fields; null = not there
    float *gram, *keys, *strengths, *decays, *counts, *means;
  };

  // lambda [outputs]. The part's fields are first_field and those after it in the layer's list.
  Curvature(const Sizes& sizes, const QuerySettings& settings, std::span<const double> lambda,
            Index first_field);
  // Anchor query_C [state_heads, ceil(key / 32), key, 32]; open query_k, query_w, query_g; anchors query_n
  // and query_m where they are needed.
  std::vector<Field> fields() const;
  const Sizes& sizes() const { return sizes_; }

  Bound bind(State& state) const;
  void absorb(const Bound& bound, const ChunkRows& part, Index key_head, const Rows& rows,
              const Kernels& k) const;
  void fold(const Bound& bound, Index key_head, const Kernels& k) const;

 private:
  bool channelwise() const { return sizes_.decay == Decay::channelwise; }
  bool counted() const { return settings_.center || settings_.normalise; }
  Index states_per_key() const { return sizes_.state_heads / sizes_.key_heads; }
  KeyChunk chunk_of(const Bound& bound, Index state) const;
  void store(const Bound& bound, const ChunkRows& part, Index key_head, const Rows& rows,
             const Kernels& k) const;
  // y = C q for the state's rows. q, y [rows, key]
  void apply_channels(const Bound& bound, const ChunkRows& part, Index state, View<const float> q,
                      View<float> y, const Kernels& k) const;
  void fold_channels(const Bound& bound, Index state, const Kernels& k) const;
  // n and m (null: not wanted) of row `i`.
  float count(const KeyGram& gram, const Bound& bound, Index state, Index i, float* mean,
              const Kernels& k) const;
  // y = C q -> q - lambda Sigma q, row by row
  void contract(const KeyGram& gram, const Bound& bound, Index state, float lambda, View<const float> q,
                View<float> y, const Kernels& k) const;

  Sizes sizes_;
  QuerySettings settings_;
  std::vector<float> lambda_;
  double left_ = 0, right_ = 0;  // decays per channel: powers on C's columns (the output's side) and rows
  StateShape gram_;
  Index stride_ = 0;  // of the open columns
  Index first_field_ = 0;
};

// write := 1, but 0 where an edit lets the state take nothing. write [rows, heads]
void write_keys(std::span<const Segment> segments, Index heads, View<float> write);

// A core whose queries are conditioned first, if there is a curvature: one walk over the chunks for both.
template <class Core>
class Conditioned {
 public:
  struct Rows : Core::Rows {
    Curvature::Rows curvature;
  };
  struct Bound {
    typename Core::Bound core;
    Curvature::Bound curvature;
  };
  using Past = typename Core::Past;

  Conditioned() = default;
  Conditioned(const Core& core) : core_(core) {}
  // The fields of core and curvature are first_field and those after it in the layer's list. With conditioned
  // queries the core has a query head per output head.
  Conditioned(const Core& core, Index first_field, const Curvature::Sizes& sizes,
              const std::optional<QuerySettings>& settings, std::span<const double> lambda)
      : core_(core) {
    if (!settings) return;
    curvature_.emplace(sizes, *settings, lambda, first_field + static_cast<Index>(core.fields().size()));
    assert(core.outputs() == sizes.outputs() && core.units() == sizes.key_heads);
  }

  std::vector<Field> fields() const {
    std::vector<Field> all = core_.fields();
    if (curvature_)
      for (Field& field : curvature_->fields()) all.push_back(std::move(field));
    return all;
  }

  // rows.q as the layer has them.
  void run(const typename Core::Rows& rows, std::span<const Segment> segments, const Compute& compute) const {
    if (!curvature_) return core_.run(rows, segments, compute);
    const Curvature::Sizes& sizes = curvature_->sizes();
    Arena::Scope scope(scratch());
    const View<float> q = scope.rows(rows.q.rows, sizes.outputs() * sizes.key),
                      write = scope.rows(rows.q.rows, sizes.state_heads);
    write_keys(segments, sizes.state_heads, write);
    Rows both{rows, {rows.q, rows.k, rows.g, write, q}};
    both.q = q;
    ChunkWalk<Conditioned>(*this, segments).run(both, compute);
  }
  void fold(State& state, const Compute& compute) const {
    if (curvature_)
      fold_chunk(*this, state, compute);
    else
      core_.fold(state, compute);
  }

  // For the walk over chunks, with a curvature.
  Index grid() const { return core_.grid(); }
  Index units() const { return core_.units(); }
  Index outputs() const { return core_.outputs(); }
  Bound bind(State& state) const { return {core_.bind(state), curvature_->bind(state)}; }
  Past past(const Bound& b) const { return core_.past(b.core); }
  Past past(const State& state, Index boundary) const { return core_.past(state, boundary); }
  void absorb(const Bound& bound, const ChunkRows& part, Index unit, const Rows& rows,
              const Kernels& k) const {
    curvature_->absorb(bound.curvature, part, unit, rows.curvature, k);
    core_.absorb(bound.core, part, unit, rows, k);
  }
  void read(const Past& past, const ChunkRows& part, Index head, const Rows& rows, const Kernels& k) const {
    core_.read(past, part, head, rows, k);
  }
  void fold(const Bound& bound, Index unit, const Kernels& k) const {
    curvature_->fold(bound.curvature, unit, k);
    core_.fold(bound.core, unit, k);
  }
  // The operators on the state act on the core's.
  void edit_anchors(const Bound& bound, const StateEdit& edit, Index unit, const Kernels& k) const {
    core_.edit_anchors(bound.core, edit, unit, k);
  }

 private:
  Core core_;
  std::optional<Curvature> curvature_;
};

}  // namespace plait
