// Elementwise functions and norms on blocks of rows: what layers compose instead of writing inner loops.
// All shapes [rows, cols]; outputs may equal inputs. Rows are independent; large blocks are spread over
// threads.
#pragma once

#include <span>

#include "runtime/base/numerics.h"
#include "runtime/base/view.h"
#include "runtime/kernels/kernels.h"

namespace plait {

void map_rows(Kernels::Map f, View<const float> x, View<float> y, const Compute& compute);
void zip_rows(Kernels::Zip f, View<const float> x, View<const float> y, View<float> z,
              const Compute& compute);
void copy_rows(View<const float> x, View<float> y);
void fill_rows(float value, View<float> y);
// y = x * a
void scale_rows(View<const float> x, float a, View<float> y, const Compute& compute);
// y += bias, one value per column. bias [cols]
void add_bias(std::span<const float> bias, View<float> y, const Compute& compute);

// 1 / sqrt(mean x^2 + eps), what rms_norm multiplies a group x [n] by; 1 / sqrt(var + eps) of layer_norm.
float rms_scale(const Kernels& k, const float* x, Index n, float eps);
float variance_scale(const Kernels& k, const float* x, Index n, float eps);
// y = x / sqrt(mean x^2 + eps) * gain, per row and per group of `group` columns (a head; cols for the whole
// row). gain [group] shared by the groups, or [cols]; null = 1.
void rms_norm(View<const float> x, Index group, float eps, std::span<const float> gain, View<float> y,
              const Compute& compute);
// y = (x - mean) / sqrt(var + eps) * gain + bias (biased variance), per group as above.
void layer_norm(View<const float> x, Index group, float eps, std::span<const float> gain,
                std::span<const float> bias, View<float> y, const Compute& compute);
// y = x / sqrt(sum x^2 + eps), then times factor, per group.
void l2_norm(View<const float> x, Index group, float eps, float factor, View<float> y,
             const Compute& compute);

}  // namespace plait
