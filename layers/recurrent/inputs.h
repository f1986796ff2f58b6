// Projections of a recurrent mixer, side by side in one buffer, with an optional short convolution over them.
#pragma once

#include <initializer_list>
#include <span>
#include <vector>

#include "runtime/base/tensor.h"
#include "runtime/kernels/convolution.h"
#include "runtime/kernels/linear.h"
#include "runtime/run/layer.h"

namespace plait {

// y[i] <- convolutions[i](x) over the rows of the segments, whose input rows then join the log `field` of
// each state.
struct Convolved {
  const Convolution* convolution;
  View<float> y;  // [rows, channels]
};
void convolve(std::span<const Segment> segments, Index field, View<const float> x,
              std::initializer_list<Convolved> outputs, const Compute& compute);
// The log field of convolution inputs.
Field convolution_field(Index channels, Index kernel);

class ConvolvedInputs {
 public:
  ConvolvedInputs() = default;
  // Weights `name` [out, width] and, with kernel > 0, taps `name`_conv [out, kernel], for every name.
  // `activation` follows the convolution.
  ConvolvedInputs(const Parameters& parameters, std::initializer_list<const char*> names, Index kernel,
                  Convolution::Activation activation);

  Index in() const { return projections_.front().in(); }
  Index width() const { return width_; }
  bool convolves() const { return convolution_.kernel() > 0; }
  Field field() const { return convolution_field(width_, convolution_.kernel()); }

  // x [rows, in], y [rows, width]: the projections in the order of the names; without a convolution there is
  // no activation either. `log` is the
  // place of field() among the layer's fields, not used without a convolution.
  void run(View<const float> x, View<float> y, std::span<const Segment> segments, Index log,
           const Compute& compute) const;

 private:
  std::vector<Linear> projections_;
  Index width_ = 0;
  Convolution convolution_;
};

}  // namespace plait
