// y = x W': the packed matrix product. Every output element is one chain of fused multiply-adds over `in`
// ascending, whatever the number of rows and threads (architecture section 4).
#pragma once

#include "runtime/base/numerics.h"
#include "runtime/base/tensor.h"
#include "runtime/base/view.h"

namespace plait {

// A weight [out, in] in panels. Copies share the storage. f32 and bf16; f16 is widened to f32 at
// construction; q8 and q4 are refused with a sentence until plait has their kernels.
class Linear {
 public:
  Linear() = default;
  explicit Linear(const Tensor& weight);  // packs plain rows; panels are used where they lie (a mapped file)

  Index out() const { return out_; }
  Index in() const { return in_; }

  // x [rows, in], y [rows, out]. y and x must not overlap.
  void run(View<const float> x, View<float> y, const Compute& compute) const;

  // One row of the weight, widened: what an embedding looks up. y [in]
  void row(Index out, float* y) const;

 private:
  Tensor weight_;
  Index out_ = 0, in_ = 0;
};

}  // namespace plait
