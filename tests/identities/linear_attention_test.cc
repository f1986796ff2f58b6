#include <gtest/gtest.h>

#include "tests/identities/mixer_definition.h"

namespace plait {
namespace {

using namespace testing;

constexpr Index kRows = 100, kWidth = 40;

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  return s;
}

OneKind::Values random_values(const Json& settings) {
  return OneKind::random_values("linear_attention", settings, surroundings(), 1);
}

// Projections, products with the state, the sum over tokens and the output projection; weights of both signs
// and the norm divide by what may be a small sum, hence the factor 16.
constexpr double kLength = kWidth + 24 + kRows + 160;

TEST(LinearAttention, MeetsItsTwin) {
  const KindInput input = random_input(kRows, kWidth, 2);
  for (const Json& settings : {Json{{"num_heads", 4}, {"head_dim", 24}, {"value_head_dim", 40}},
                               Json{{"num_heads", 4},
                                    {"num_kv_heads", 2},
                                    {"head_dim", 9},
                                    {"value_head_dim", 32},
                                    {"feature_map", "taylor2"}},
                               Json{{"num_heads", 2},
                                    {"num_kv_heads", 1},
                                    {"head_dim", 24},
                                    {"feature_map", "relu"},
                                    {"output_norm", true}},
                               Json{{"num_heads", 2},
                                    {"head_dim", 40},
                                    {"feature_map", "identity"},
                                    {"normalise", false},
                                    {"scale", 0.5}}}) {
    const OneKind kind("linear_attention", settings, surroundings(), random_values(settings));
    SCOPED_TRACE(settings.dump());
    const std::vector<float> whole = kind.run(input);
    expect_near(whole, kind.twin(input), 16, kLength);
    EXPECT_TRUE(same_bits(kind.run(input, {.split = {1, 20, 33}}), whole));
  }
}

// Identities 21 and 22: attention weights written out, w_ij = 1 + t + t^2 / 2 with t = q.k / sqrt(d), over
// all keys.
TEST(LinearAttention, TaylorWeightsAreNormalisedPolynomials) {
  const Index d = 12, heads = 2, dv = 20;
  const Json settings = {
      {"num_heads", heads}, {"head_dim", d}, {"value_head_dim", dv}, {"feature_map", "taylor2"}};
  const OneKind::Values values = random_values(settings);
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, numbers] : values)
    tensors[name] = make_tensor({static_cast<Index>(numbers.size())}, numbers);
  const reference::Weights weights{Parameters(tensors)};
  const KindInput input = random_input(kRows, kWidth, 3);
  const std::vector<double> wide = widen(input.inputs[0]);
  const View<const double> x(wide.data(), kRows, kWidth);
  const reference::Rows q = weights.project("q", x), k = weights.project("k", x), v = weights.project("v", x);
  reference::Rows o(kRows, heads * dv);
  for (Index h = 0; h < heads; ++h)
    for (Index i = 0; i < kRows; ++i) {
      double mass = 0;
      for (Index j = 0; j <= i; ++j) {
        double t = 0;
        for (Index c = h * d; c < (h + 1) * d; ++c)
          t += q(i, c) * k(j, c) / std::sqrt(static_cast<double>(d));
        const double weight = 1 + t + t * t / 2;
        mass += weight;
        for (Index c = h * dv; c < (h + 1) * dv; ++c) o(i, c) += weight * v(j, c);
      }
      for (Index c = h * dv; c < (h + 1) * dv; ++c) o(i, c) /= mass;
    }
  const OneKind kind("linear_attention", settings, surroundings(), values);
  expect_near(kind.run(input), weights.project("o", o.view()).data, 16, kLength);
}

TEST(LinearAttention, EditsAsDefined) {
  expect_edits_as_defined("linear_attention", {{"num_heads", 2}, {"head_dim", 24}, {"value_head_dim", 40}},
                          surroundings(), 16, kLength);
}

TEST(LinearAttention, RefusesUnevenHeads) {
  const Json settings = {{"num_heads", 3}, {"num_kv_heads", 2}, {"head_dim", 8}};
  Config config("tested", settings, surroundings());
  EXPECT_THROW(Registry::builtin().find("linear_attention").tensors(config), Error);
}

}  // namespace
}  // namespace plait
