// What the twins of recurrent mixers share: rows in double, projections by name, and the token-by-token
// recurrences as the papers write them.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/tensor.h"
#include "runtime/base/view.h"

namespace plait::reference {

// Owned rows [rows, cols], zero at birth.
struct Rows {
  Rows(Index rows_, Index cols_) : rows(rows_), cols(cols_), data(static_cast<std::size_t>(rows_ * cols_)) {}
  double* row(Index r) { return data.data() + r * cols; }
  const double* row(Index r) const { return data.data() + r * cols; }
  double& operator()(Index r, Index c) { return row(r)[c]; }
  double operator()(Index r, Index c) const { return row(r)[c]; }
  View<double> view() { return {data.data(), rows, cols}; }
  View<const double> view() const { return {data.data(), rows, cols}; }

  Index rows, cols;
  std::vector<double> data;
};

// A node's tensors in double, by name.
class Weights {
 public:
  explicit Weights(const Parameters& parameters);
  const std::vector<double>& operator[](const std::string& name) const { return values_.at(name); }
  double at(const std::string& name, Index i) const { return values_.at(name)[static_cast<std::size_t>(i)]; }
  // y = x W', W the tensor of that name [out, x.cols]
  Rows project(const std::string& name, View<const double> x) const;
  // Depthwise causal convolution by taps [cols, kernel]; bias [cols] or empty.
  Rows convolve(const std::string& taps, const Rows& x, std::span<const double> bias = {}) const;

 private:
  std::map<std::string, std::vector<double>> values_;
};

double sigmoid(double x);
double silu(double x);
double softplus(double x);     // log(1 + e^x)
double log_sigmoid(double x);  // -softplus(-x)
double gelu_tanh(double x);

template <class F>
void map(Rows& x, F f) {
  for (double& value : x.data) value = f(value);
}

// Per group of `width` columns: x / sqrt(sum x^2 + eps); x / sqrt(mean x^2 + eps) * gain[column mod
// gain.size()].
void l2_normalise(Rows& x, Index width, double eps);
void rms_normalise(Rows& x, Index width, double eps, std::span<const double> gain);
void layer_normalise(Rows& x, Index width, double eps, std::span<const double> gain,
                     std::span<const double> bias);

struct Heads {
  Index queries = 0, keys = 0, states = 0;  // numbers of heads; each divides, or is a multiple of, the next
  Index key = 0, value = 0;                 // widths
  double scale = 1;
};

// o_t = scale * S_t^T q_t for max(queries, states) output heads, S_t = diag(e^g_t) S_{t-1} + w_t k_t v_t^T.
// g [rows, states] or [rows, states * key]; w [rows, states]; null = 0 and 1.
Rows decayed_sum(const Heads& heads, const Rows& q, const Rows& k, const Rows& v, const Rows* g,
                 const Rows* w);
// As above with S_t = e^g S_{t-1} + k_t (beta_t (v_t - (e^g S_{t-1})^T k_t))^T. g, beta [rows, states]; null
// g = 0.
Rows delta_rule(const Heads& heads, const Rows& q, const Rows& k, const Rows& v, const Rows* g,
                const Rows& beta);

}  // namespace plait::reference
