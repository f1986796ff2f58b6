// Attention without softmax as a double loop over pairs of tokens, beside the kinds that run it as a
// recurrence.
#pragma once

#include <functional>
#include <vector>

#include "layers/reference/recurrence.h"
#include "tests/identities/tolerance.h"
#include "tests/one_kind.h"

namespace plait::testing {

struct WeightedPairs {
  using Rows = reference::Rows;

  Index heads = 1, kv_heads = 1, d = 0, dv = 0;
  // weight(q [d], k [d], i, j) of token j for token i
  std::function<double(const double*, const double*, Index, Index)> weight = {};
  std::function<double(double)> divisor = [](double mass) { return mass; };
  // What happens to projected queries (true) and keys (false) before the heads are cut.
  std::function<void(bool, Rows&, const reference::Weights&)> prepare = [](bool, Rows&,
                                                                           const reference::Weights&) {};

  std::vector<double> run(const OneKind::Values& values, const KindInput& input) const {
    std::map<std::string, Tensor> tensors;
    for (const auto& [name, numbers] : values)
      tensors[name] = make_tensor({static_cast<Index>(numbers.size())}, numbers);
    const reference::Weights weights{Parameters(tensors)};
    const auto project = [&](const std::string& name, View<const double> from) {
      Rows y = weights.project(name, from);
      for (Index t = 0; values.contains(name + "_bias") && t < y.rows; ++t)
        for (Index c = 0; c < y.cols; ++c) y(t, c) += weights.at(name + "_bias", c);
      return y;
    };
    const std::vector<double> wide = widen(input.inputs[0]);
    const View<const double> x(wide.data(), input.rows, static_cast<Index>(wide.size()) / input.rows);
    Rows q = project("q", x), k = project("k", x);
    prepare(true, q, weights);
    prepare(false, k, weights);
    return project("o", attend(q, k, project("v", x)).view()).data;
  }

 private:
  Rows attend(const Rows& q, const Rows& k, const Rows& v) const {
    Rows o(q.rows, heads * dv);
    for (Index h = 0; h < heads; ++h)
      for (Index i = 0; i < q.rows; ++i) {
        const Index source = h / (heads / kv_heads);
        double mass = 0;
        for (Index j = 0; j <= i; ++j) {
          const double w = weight(q.row(i) + h * d, k.row(j) + source * d, i, j);
          mass += w;
          for (Index c = 0; c < dv; ++c) o(i, h * dv + c) += w * v(j, source * dv + c);
        }
        for (Index c = h * dv; c < (h + 1) * dv; ++c) o(i, c) /= divisor(mass);
      }
    return o;
  }
};

inline double dot(const double* x, const double* y, Index n) {
  double sum = 0;
  for (Index i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

// Two evaluations in double of the same sums, of positive terms or measured against the largest output.
inline void expect_same(const std::vector<double>& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (const double x : actual) ASSERT_TRUE(std::isfinite(x));
  EXPECT_LT(relative_error(actual, expected), 1e-12);
}

// The twin gives what the pairs gave; so does the kind, over sums of `length` terms, whole and in pieces.
inline void expect_pairs(const OneKind& kind, const KindInput& input, const std::vector<double>& expected,
                         double length) {
  expect_same(kind.twin(input), expected);
  const std::vector<float> whole = kind.run(input);
  expect_near(whole, expected, 16, length);
  EXPECT_TRUE(same_bits(kind.run(input, {.split = {1, 20, 33}}), whole));
}

}  // namespace plait::testing
