// The gated delta rule that remembers only some of its chunks (NAtS-L, arXiv 2602.03681): inside a chunk
// every row is absorbed; a complete chunk that the router gives to attention leaves nothing but its decay.
#pragma once

#include <span>
#include <vector>

#include "layers/recurrent/delta.h"

namespace plait {

// Whether attention remembers a block, from the sum over its tokens of logit(attention) - logit(delta rule).
inline bool routed_to_attention(double sum) { return sum >= 0; }

class RoutedDelta {
 public:
  struct Sizes {
    Index heads = 0, key = 0, value = 0;
    Index block = 0;           // the chunk
    bool keeps_decays = true;  // of blocks that attention remembers
  };
  struct Rows {
    Delta::Rows delta;         // one value head per key head
    View<const float> routes;  // [rows, heads] logit(attention) - logit(delta rule)
  };
  struct Bound {
    Delta::Bound delta;
    float* routes;
  };

  // The core's fields are first_field and those after it in the layer's list.
  RoutedDelta(const Sizes& sizes, Index first_field);
  // Those of Delta; open route.
  std::vector<Field> fields() const;

  void run(const Rows& rows, std::span<const Segment> segments, const Compute& compute) const;
  void fold(State& state, const Compute& compute) const;

  // For the walk over chunks.
  Index grid() const { return sizes_.block; }
  Index units() const { return sizes_.heads; }
  Bound bind(State& state) const;
  void absorb(const Bound& bound, const ChunkRows& part, Index head, const Rows& rows,
              const Kernels& k) const;
  void fold(const Bound& bound, Index head, const Kernels& k) const;
  void edit_anchors(const Bound& bound, const StateEdit& edit, Index head, const Kernels& k) const;

 private:
  Sizes sizes_;
  Delta delta_;
  Index first_field_ = 0;
};

}  // namespace plait
