#include "layers/reference/recurrence.h"

#include <algorithm>
#include <cmath>

#include "layers/reference/dense.h"

namespace plait::reference {

Weights::Weights(const Parameters& parameters) {
  for (const auto& [name, tensor] : parameters.all()) values_[name] = to_double(tensor);
}

Rows Weights::project(const std::string& name, View<const double> x) const {
  const std::vector<double>& weight = values_.at(name);
  Rows y(x.rows, static_cast<Index>(weight.size()) / x.cols);
  dense_product(x, weight, y.view());
  return y;
}

Rows Weights::convolve(const std::string& taps, const Rows& x, std::span<const double> bias) const {
  const std::vector<double>& weight = values_.at(taps);
  const Index kernel = static_cast<Index>(weight.size()) / x.cols;
  Rows y(x.rows, x.cols);
  for (Index t = 0; t < x.rows; ++t)
    for (Index c = 0; c < x.cols; ++c) {
      double sum = bias.empty() ? 0 : bias[static_cast<std::size_t>(c)];
      for (Index w = 0; w < kernel; ++w) {
        const Index source = t - (kernel - 1) + w;
        if (source >= 0) sum += weight[static_cast<std::size_t>(c * kernel + w)] * x(source, c);
      }
      y(t, c) = sum;
    }
  return y;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double silu(double x) { return x * sigmoid(x); }
double softplus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }
double log_sigmoid(double x) { return -softplus(-x); }
double gelu_tanh(double x) {
  const double inner = std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x);
  return 0.5 * x * (1 + std::tanh(inner));
}

namespace {

// Calls body(group's first value) for every group of `width` columns of every row.
template <class Body>
void for_each_group(Rows& x, Index width, Body&& body) {
  for (Index t = 0; t < x.rows; ++t)
    for (Index c = 0; c < x.cols; c += width) body(x.row(t) + c, c);
}

double sum_of_squares(const double* x, Index n) {
  double sum = 0;
  for (Index i = 0; i < n; ++i) sum += x[i] * x[i];
  return sum;
}

double pick(std::span<const double> values, Index i) {
  return values[static_cast<std::size_t>(i) % values.size()];
}

}  // namespace

void l2_normalise(Rows& x, Index width, double eps) {
  for_each_group(x, width, [&](double* group, Index) {
    const double norm = std::sqrt(sum_of_squares(group, width) + eps);
    for (Index i = 0; i < width; ++i) group[i] /= norm;
  });
}

void rms_normalise(Rows& x, Index width, double eps, std::span<const double> gain) {
  for_each_group(x, width, [&](double* group, Index column) {
    const double norm = std::sqrt(sum_of_squares(group, width) / static_cast<double>(width) + eps);
    for (Index i = 0; i < width; ++i) group[i] *= pick(gain, column + i) / norm;
  });
}

void layer_normalise(Rows& x, Index width, double eps, std::span<const double> gain,
                     std::span<const double> bias) {
  for_each_group(x, width, [&](double* group, Index column) {
    double mean = 0;
    for (Index i = 0; i < width; ++i) mean += group[i] / static_cast<double>(width);
    for (Index i = 0; i < width; ++i) group[i] -= mean;
    const double deviation = std::sqrt(sum_of_squares(group, width) / static_cast<double>(width) + eps);
    for (Index i = 0; i < width; ++i)
      group[i] = group[i] / deviation * pick(gain, column + i) + pick(bias, column + i);
  });
}

namespace {

// S [key, value] of one head, and what both recurrences do with it.
struct HeadState {
  HeadState(Index key_, Index value_)
      : key(key_), value(value_), s(static_cast<std::size_t>(key_ * value_)) {}
  double* row(Index d) { return s.data() + d * value; }

  // decay has 1 or `key` values
  void forget(const double* decay, Index channels) {
    for (Index d = 0; d < key; ++d)
      for (Index c = 0; c < value; ++c) row(d)[c] *= std::exp(decay[channels == 1 ? 0 : d]);
  }
  std::vector<double> read(const double* q) {
    std::vector<double> o(static_cast<std::size_t>(value));
    for (Index d = 0; d < key; ++d)
      for (Index c = 0; c < value; ++c) o[static_cast<std::size_t>(c)] += row(d)[c] * q[d];
    return o;
  }
  void write(const double* k, const double* u) {
    for (Index d = 0; d < key; ++d)
      for (Index c = 0; c < value; ++c) row(d)[c] += k[d] * u[c];
  }

  Index key, value;
  std::vector<double> s;
};

// The walk both recurrences share: update(state, t, head, key row) changes S, then the queries of that head
// read it.
template <class Update>
Rows recur(const Heads& heads, const Rows& q, const Rows& k, const Rows* g, Update&& update) {
  const Index outputs = std::max(heads.queries, heads.states), reads = outputs / heads.states;
  Rows o(q.rows, outputs * heads.value);
  for (Index h = 0; h < heads.states; ++h) {
    HeadState state(heads.key, heads.value);
    for (Index t = 0; t < q.rows; ++t) {
      if (g) {
        const Index channels = g->cols / heads.states;
        state.forget(g->row(t) + h * channels, channels);
      }
      update(state, t, h, k.row(t) + h / (heads.states / heads.keys) * heads.key);
      for (Index r = 0; r < reads; ++r) {
        const Index output = h * reads + r, query = output / (outputs / heads.queries);
        const std::vector<double> read = state.read(q.row(t) + query * heads.key);
        for (Index c = 0; c < heads.value; ++c)
          o(t, output * heads.value + c) = heads.scale * read[static_cast<std::size_t>(c)];
      }
    }
  }
  return o;
}

}  // namespace

Rows decayed_sum(const Heads& heads, const Rows& q, const Rows& k, const Rows& v, const Rows* g,
                 const Rows* w) {
  std::vector<double> u(static_cast<std::size_t>(heads.value));
  return recur(heads, q, k, g, [&](HeadState& state, Index t, Index h, const double* key) {
    for (Index c = 0; c < heads.value; ++c)
      u[static_cast<std::size_t>(c)] = (w ? (*w)(t, h) : 1.0) * v(t, h * heads.value + c);
    state.write(key, u.data());
  });
}

Rows delta_rule(const Heads& heads, const Rows& q, const Rows& k, const Rows& v, const Rows* g,
                const Rows& beta) {
  return recur(heads, q, k, g, [&](HeadState& state, Index t, Index h, const double* key) {
    std::vector<double> u = state.read(key);
    for (Index c = 0; c < heads.value; ++c) {
      double& value = u[static_cast<std::size_t>(c)];
      value = beta(t, h) * (v(t, h * heads.value + c) - value);
    }
    state.write(key, u.data());
  });
}

}  // namespace plait::reference
