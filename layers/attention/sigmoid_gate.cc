#include "layers/attention/sigmoid_gate.h"

#include "runtime/base/arena.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/edit_rows.h"
#include "runtime/run/rows.h"

namespace plait {

SigmoidGate::SigmoidGate(Index num_heads, Index width, const Tensor* weight, const Tensor* bias)
    : num_heads_(num_heads), width_(width) {
  if (bias) bias_ = to_float(*bias);
  if (weight) weight_.emplace(*weight);
}

void SigmoidGate::apply(View<const float> x, View<const float> packed, std::span<const Segment> segments,
                        View<float> heads, const Compute& compute) const {
  if (num_heads_ == 0) return;
  const Kernels& k = kernels(compute);
  Arena::Scope scope(scratch());
  const Index columns = num_heads_ * width_;
  const View<float> logits = scope.rows(x.rows, columns);
  if (weight_)
    for_each_block(segments, [&](Index first, Index rows) {
      const View<float> block = logits.slice_rows(first, rows);
      weight_->run(x.slice_rows(first, rows), block, compute);
      if (!bias_.empty()) add_bias(bias_, block, compute);
    });
  for (const Segment& segment : segments) {
    for_each_row(segment.first_row, segment.rows, compute.threads, [&](Index r) {
      float* factors = logits.row(r);
      k.sigmoid(weight_ ? factors : packed.row(r), factors, columns);
      apply_row(segment, factors, heads.row(r), heads.cols / num_heads_, k);
    });
    segment.show(Site::gate, logits);
  }
}

void SigmoidGate::apply_row(const Segment& segment, float* factors, float* heads, Index head_width,
                            const Kernels& k) const {
  for (Index h = 0; h < num_heads_; ++h) {
    if (segment.edit(Site::gate, Operator::one, h)) continue;
    if (const Edit* mean = segment.edit(Site::gate, Operator::mean, h))
      fill_values(*mean, num_heads_, h, {factors + h * width_, 1, width_});
    float* head = heads + h * head_width;
    if (width_ == 1 && head_width > 1)
      k.scale(head, factors[h], head, head_width);
    else
      k.multiply(head, factors + h * width_, head, head_width);
  }
}

}  // namespace plait
