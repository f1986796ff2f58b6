// readout: affine_scaled_attention. o = alpha (attn - mean of the visible values) + alpha_ma mean
#include <algorithm>

#include "layers/attention/stages.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/linear.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

class AffineScaled final : public Readout {
 public:
  AffineScaled(const AffineScaledAttention& settings, StageParts& parts)
      : gate_(settings.gate),
        alpha_(parts.parameters.tensor("affine_alpha")),
        average_(to_float(parts.parameters.tensor("affine_alpha_ma"))),
        columns_(parts.take_numbers(alpha_.out())) {
    if (settings.bias) bias_ = to_float(parts.parameters.tensor("affine_alpha_bias"));
  }

  void prepare(const RowNumbers& rows, std::span<const Segment> segments,
               const Compute& compute) const override {
    const View<float> alpha = rows.numbers.slice_cols(columns_, alpha_.out());
    const Kernels& k = kernels(compute);
    for_each_block(segments, [&](Index first, Index count) {
      const View<float> block = alpha.slice_rows(first, count);
      alpha_.run(rows.x.slice_rows(first, count), block, compute);
      if (!bias_.empty()) add_bias(bias_, block, compute);
      for (Index r = 0; r < count; ++r) {
        if (gate_ == AffineScaledAttention::Gate::sigmoid)
          k.sigmoid(block.row(r), block.row(r), block.cols);
        else
          k.clamp(block.row(r), 0, 1, block.row(r), block.cols);
      }
    });
  }

  Index accumulators() const override { return 2; }
  bool follows_maximum(Index accumulator) const override { return accumulator == 0; }
  void weights(Index, const float*, const float*, float* w, Index count, const Kernels&) const override {
    std::fill_n(w, count, 1.0f);
  }

  void finish(const QueryRow& row, const RowSums& sums, float factor, Index width,
              const Kernels& k) const override {
    const float alpha = row.numbers[columns_ + row.head];
    const float seen = static_cast<float>(std::max<Index>(1, row.visible_count()));
    k.scale(sums.sums, alpha * factor, row.out, width);
    k.add_scaled((average_[static_cast<std::size_t>(row.head)] - alpha) / seen, sums.sums + width, row.out,
                 width);
  }

 private:
  AffineScaledAttention::Gate gate_;
  Linear alpha_;
  std::vector<float> bias_, average_;  // [num_heads]
  Index columns_;
};

}  // namespace

std::unique_ptr<Readout> make_affine_scaled_attention(const AffineScaledAttention& settings,
                                                      StageParts& parts) {
  return std::make_unique<AffineScaled>(settings, parts);
}

}  // namespace plait
