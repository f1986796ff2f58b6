#include <gtest/gtest.h>

#include "tests/identities/mixer_definition.h"

namespace plait {
namespace {

using namespace testing;

constexpr Index kRows = 100, kWidth = 40;
const Json kSettings = {{"num_heads", 4},          {"num_kv_heads", 4}, {"head_dim", 24},
                        {"value_head_dim", 40},    {"conv", 4},         {"decay_rank", 5},
                        {"decay_temperature", 2.0}};

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  return s;
}

OneKind::Values random_values(const Json& settings) {
  return OneKind::random_values("gated_linear_attention", settings, surroundings(), 1);
}

// Projections, products with the state, the sum over tokens and the output projection; the norm divides by
// what may be a small sum, hence the factor 16.
constexpr double kLength = kWidth + 24 + kRows + 160;

TEST(GatedLinearAttention, MeetsItsTwin) {
  const KindInput input = random_input(kRows, kWidth, 2);
  for (const Json& more : {Json::object(), Json{{"conv", 0}, {"gate", "sigmoid"}, {"num_kv_heads", 2}},
                           Json{{"gate", "none"}, {"num_kv_heads", 1}, {"decay_temperature", 0.05}}}) {
    Json settings = kSettings;
    settings.update(more);
    const OneKind kind("gated_linear_attention", settings, surroundings(), random_values(settings));
    SCOPED_TRACE(more.dump());
    const std::vector<float> whole = kind.run(input);
    expect_near(whole, kind.twin(input), 16, kLength);
    EXPECT_TRUE(same_bits(kind.run(input, {.split = {1, 20, 33}}), whole));
  }
}

// Identity 7: with the same decay in all channels of a head, the layer is a recurrence with one decay per
// head.
TEST(GatedLinearAttention, EqualChannelsAreOneDecay) {
  const Json settings = {{"num_heads", 2},  {"head_dim", 24},           {"value_head_dim", 40},
                         {"decay_rank", 2}, {"decay_temperature", 1.0}, {"gate", "none"}};
  OneKind::Values values = random_values(settings);
  // Each head reads one inner channel of the decay in all its channels.
  std::fill(values["decay_1"].begin(), values["decay_1"].end(), 0.0f);
  std::fill(values["decay_bias"].begin(), values["decay_bias"].end(), 0.0f);
  for (std::size_t c = 0; c < 48; ++c) values["decay_1"][c * 2 + c / 24] = 1;
  const KindInput input = random_input(kRows, kWidth, 3);

  std::map<std::string, Tensor> tensors;
  for (const auto& [name, numbers] : values)
    tensors[name] = make_tensor({static_cast<Index>(numbers.size())}, numbers);
  const reference::Weights weights{Parameters(tensors)};
  const std::vector<double> wide = widen(input.inputs[0]);
  const View<const double> x(wide.data(), kRows, kWidth);
  reference::Rows g = weights.project("decay_0", x);  // [rows, heads]
  reference::map(g, reference::log_sigmoid);
  const reference::Heads heads{2, 2, 2, 24, 40, 1 / std::sqrt(24.0)};
  reference::Rows o = reference::decayed_sum(heads, weights.project("q", x), weights.project("k", x),
                                             weights.project("v", x), &g, nullptr);
  reference::rms_normalise(o, 40, 1e-5, weights["norm"]);
  const OneKind kind("gated_linear_attention", settings, surroundings(), values);
  expect_near(kind.run(input), weights.project("o", o.view()).data, 16, kLength);
}

TEST(GatedLinearAttention, EditsAsDefined) {
  expect_edits_as_defined("gated_linear_attention", kSettings, surroundings(), 16, kLength);
}

}  // namespace
}  // namespace plait
