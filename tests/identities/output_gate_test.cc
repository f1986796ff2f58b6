// The gate on a recurrent mixer's output: o := o * f(gate x + bias).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/identities/mixer_definition.h"
#include "tests/identities/recurrent_rows.h"

namespace plait {
namespace {

using namespace testing;

constexpr Index kRows = 70, kWidth = 40;

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  return s;
}

struct Gated {
  const char* kind;
  Json settings;
};

std::vector<Gated> gated_kinds() {
  return {
      {"delta_net", {{"num_heads", 2}, {"head_dim", 16}}},
      {"gated_delta_net", {{"num_heads", 2}, {"num_value_heads", 4}, {"head_dim", 16}}},
      {"gated_linear_attention", {{"num_heads", 2}, {"head_dim", 16}}},
      {"mesa_net", {{"num_heads", 2}, {"head_dim", 16}}},
      {"ttt_linear", {{"num_heads", 2}, {"head_dim", 16}}},
      {"polynomial_attention", {{"num_heads", 2}, {"head_dim", 16}, {"degree", 2}, {"denominator", "sum"}}}};
}

OneKind make(const Gated& gated, const char* gate, bool bias, const OneKind::Values& values) {
  Json settings = gated.settings;
  settings["gate"] = gate;
  if (bias) settings["gate_bias"] = true;
  return OneKind(gated.kind, settings, surroundings(), values);
}

// With no weights a gate is the function of its bias: the mixer's output times sigmoid(0.5), about 0.622. The
// factor meets every column of o before Wo, so outputs differ from the scaled ones by the rounding of that
// product, of which there is one more; 2^-24 each, over sums of 64 columns.
TEST(OutputGate, ABiasAloneIsAFactor) {
  const KindInput input = random_input(kRows, kWidth, 1);
  for (const Gated& gated : gated_kinds()) {
    SCOPED_TRACE(gated.kind);
    Json settings = gated.settings;
    settings["gate"] = "sigmoid";
    settings["gate_bias"] = true;
    OneKind::Values values = OneKind::random_values(gated.kind, settings, surroundings(), 2);
    std::fill(values["gate"].begin(), values["gate"].end(), 0.0f);
    std::fill(values["gate_bias"].begin(), values["gate_bias"].end(), 0.5f);
    const OneKind biased = make(gated, "sigmoid", true, values);
    values.erase("gate_bias");
    const OneKind half = make(gated, "sigmoid", false, values);  // sigmoid(0) = 1 / 2
    values.erase("gate");
    const OneKind bare = make(gated, "none", false, values);
    const std::vector<float> plain = bare.run(input), with_bias = biased.run(input),
                             without = half.run(input);
    const double factor = 1 / (1 + std::exp(-0.5));
    double largest = 0;
    for (const float y : plain) largest = std::max(largest, std::abs(static_cast<double>(y)));
    for (std::size_t i = 0; i < plain.size(); ++i) {
      EXPECT_NEAR(with_bias[i], factor * plain[i], 64 * std::ldexp(largest, -24));
      EXPECT_NEAR(without[i], plain[i] / 2, 64 * std::ldexp(largest, -24));
    }
  }
}

TEST(OutputGate, ABiasNeedsAGate) {
  for (const Gated& gated : gated_kinds()) {
    Json settings = gated.settings;
    settings["gate"] = "none";
    settings["gate_bias"] = true;
    try {
      OneKind::random_values(gated.kind, settings, surroundings(), 3);
      ADD_FAILURE() << gated.kind;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("gate_bias means nothing while gate is none"),
                std::string::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace plait
