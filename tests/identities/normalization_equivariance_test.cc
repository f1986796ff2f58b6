// What softmax-family 4.7 and 7 say of normalization_equivariance.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "tests/identities/tolerance.h"
#include "tests/one_kind.h"

namespace plait {
namespace {

using testing::expect_near;
using testing::KindInput;
using testing::OneKind;
using testing::random_input;
using testing::same_bits;

constexpr Index kRows = 70, kWidth = 24;
constexpr const char* kKind = "normalization_equivariance";

Surroundings surroundings(Index inputs, Index width = kWidth) {
  Surroundings s;
  s.width = width;
  s.inputs = inputs;
  s.causal = false;
  return s;
}

OneKind opening(const char* form) { return {kKind, {{"form", form}}, surroundings(1), {}}; }
OneKind closing(const char* form) { return {kKind, {{"form", form}}, surroundings(2), {}}; }

// A network between the two nodes.
class Wrapped {
 public:
  explicit Wrapped(const char* form)
      : open_(opening(form)),
        close_(closing(form)),
        network_("gated_mlp", kNetwork, surroundings(1),
                 OneKind::random_values("gated_mlp", kNetwork, surroundings(1), 3)) {}

  std::vector<float> run(const std::vector<float>& y) const {
    const auto opened = open_.run({kRows, {y}, {}});
    return close_.run({kRows, {y, network_.run({kRows, {opened}, {}})}, {}});
  }

 private:
  static inline const Json kNetwork = {{"hidden", 32}};
  OneKind open_, close_, network_;
};

std::vector<float> moved(const std::vector<float>& y, float a, float b) {
  std::vector<float> all;
  for (const float x : y) all.push_back(a * x + b);
  return all;
}

TEST(NormalizationEquivariance, MeetsItsTwin) {
  for (const char* form : {"direct", "residual", "scale_only"}) {
    SCOPED_TRACE(form);
    const auto one = random_input(kRows, kWidth, 1), two = random_input(kRows, kWidth, 2, 2);
    const OneKind open = opening(form), close = closing(form);
    expect_near(open.run(one), open.twin(one), 4, kWidth);
    expect_near(close.run(two), close.twin(two), 4, kWidth);
  }
}

// f(a y + b) = a f(y) + b for a > 0. A shift by b costs the bits that b is longer than the signal.
TEST(NormalizationEquivariance, FollowsScalesAndShifts) {
  const std::vector<float> y = random_input(kRows, kWidth, 4).inputs[0];
  for (const char* form : {"direct", "residual"}) {
    const Wrapped f(form);
    const std::vector<float> plain = f.run(y);
    for (const auto& [a, b] : {std::pair{1.0f, 2.0f}, {0.25f, 0.0f}, {3.0f, -1.5f}, {100.0f, 30.0f}}) {
      SCOPED_TRACE(cat(form, ", a = ", a, ", b = ", b));
      const std::vector<float> expected = moved(plain, a, b);
      expect_near(f.run(moved(y, a, b)), testing::widen(expected), 8, kWidth);
    }
  }
}

// A network alone does not.
TEST(NormalizationEquivariance, ANetworkAloneFollowsNothing) {
  const Json settings = {{"hidden", 32}};
  const OneKind network("gated_mlp", settings, surroundings(1),
                        OneKind::random_values("gated_mlp", settings, surroundings(1), 3));
  const std::vector<float> y = random_input(kRows, kWidth, 4).inputs[0];
  const auto run = [&](const std::vector<float>& x) { return network.run({kRows, {x}, {}}); };
  EXPECT_GT(testing::relative_error(testing::widen(run(moved(y, 3, 0))), testing::widen(moved(run(y), 3, 0))),
            0.1);
}

// scale_only follows factors, up to the 1e-5 beside the root mean square, and no shifts.
TEST(NormalizationEquivariance, ScaleOnlyFollowsScales) {
  const Wrapped f("scale_only");
  const std::vector<float> y = random_input(kRows, kWidth, 5).inputs[0], plain = f.run(y);
  const auto distance = [&](float a, float b) {
    return testing::relative_error(testing::widen(f.run(moved(y, a, b))), testing::widen(moved(plain, a, b)));
  };
  EXPECT_LE(distance(3, 0), 1e-4);
  EXPECT_GT(distance(1, 2), 1e-2);
}

// A constant signal has no deviation: it comes out as it went in, whatever the network says.
TEST(NormalizationEquivariance, AConstantSignalIsItsOwnAnswer) {
  const std::vector<float> constant(static_cast<std::size_t>(kRows * kWidth), 0.375f);
  for (const char* form : {"direct", "residual"}) {
    EXPECT_TRUE(same_bits(Wrapped(form).run(constant), constant)) << form;
    for (const float x : opening(form).run({kRows, {constant}, {}})) EXPECT_EQ(x, 0) << form;
  }
  const OneKind close(kKind, Json::object(), surroundings(2, 1), {});
  EXPECT_EQ(close.run({1, {{2.5f}, {7.0f}}, {}}), std::vector<float>{2.5f});  // one value has no deviation
}

TEST(NormalizationEquivariance, TakesOneInputOrTwo) {
  EXPECT_THROW(OneKind(kKind, Json::object(), surroundings(3), {}), Error);
}

}  // namespace
}  // namespace plait
