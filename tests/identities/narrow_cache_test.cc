// Keys and values, or latents, cached in 16 bits (setting `cache`).
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/base/half.h"
#include "tests/identities/attention_rows.h"

namespace plait {
namespace {

using testing::kEps;
using testing::KindInput;
using testing::OneKind;
using testing::random_input;
using testing::same_bits;

constexpr Index kRows = 150, kWidth = 24;
constexpr const char* kNarrow[] = {"f16", "bf16"};
const Json kPlain = {{"num_heads", 4}, {"num_kv_heads", 2}, {"head_dim", 12}, {"value_head_dim", 20}};

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  s.grids = {32, 64, 128};
  return s;
}

Json with_cache(Json settings, const char* cache) {
  settings["cache"] = cache;
  return settings;
}

constexpr const char* kSoftmax = "softmax_attention";
constexpr const char* kLatent = "latent_attention";

OneKind layer_of(const Json& settings, const OneKind::Values& values, const char* kind = kSoftmax) {
  return OneKind(kind, settings, surroundings(), values);
}

OneKind::Values values_of(const Json& settings, const char* kind = kSoftmax) {
  return OneKind::random_values(kind, settings, surroundings(), 5);
}

// The state after all rows.
State state_after(const OneKind& kind, const KindInput& input) {
  State state(kind.layer().fields());
  std::vector<float> output(static_cast<std::size_t>(input.rows * kind.output_width()));
  const View<const float> x(input.inputs[0].data(), input.rows, kWidth);
  Ports ports;
  ports.inputs = {&x, 1};
  ports.output = View<float>(output.data(), input.rows, kind.output_width());
  const Segment segment{&state, 0, 0, input.rows};
  Context context;
  kind.layer().run(ports, {&segment, 1}, context);
  state.advance(input.rows);
  return state;
}

std::uint16_t narrowed(float value, DType dtype) {
  return dtype == DType::f16 ? to_f16(value).bits : to_bf16(value).bits;
}

TEST(NarrowCache, HoldsRoundedRowsInHalfTheBytes) {
  for (const Index window : {0, 37}) {
    Json settings = kPlain;
    settings["rope"] = {{"theta", 10000}};
    settings["window"] = window;
    const OneKind::Values values = values_of(settings);
    const KindInput input = random_input(kRows, kWidth, 6);
    const State wide = state_after(layer_of(settings, values), input);
    for (const char* cache : kNarrow) {
      const State state = state_after(layer_of(with_cache(settings, cache), values), input);
      // 2 bytes for every channel of the 2 key and value heads, whole pages of 64 tokens or, for values under
      // the window, as many
      const std::size_t pages = window == 0 ? 3 : 2;
      EXPECT_EQ(state.bytes(), pages * 64 * 2 * 2 * (12 + 20));
      EXPECT_EQ(wide.bytes(), 2 * state.bytes());
      for (const Index field : {0, 1}) {
        const Log &rounded = state.log(field), &log = wide.log(field);
        for (Index p = rounded.first_held(); p < kRows; ++p) {
          const Index at = p % log.page_rows(), stride = log.stride();
          for (Index c = 0; c < log.width(); ++c) {
            const Index element = field == 0 ? c * stride + at : at * stride + c;
            ASSERT_EQ(rounded.page<std::uint16_t>(p)[element],
                      narrowed(log.page(p)[element], rounded.dtype()))
                << cache << ", field " << field << ", position " << p;
          }
        }
      }
    }
  }
}

// Keys and values that are whole numbers up to 24: both types hold them.
TEST(NarrowCache, NumbersThatFitChangeNoBit) {
  for (const char* score : {"scaled_dot", "alibi"}) {
    Json settings = kPlain;
    if (std::string(score) != "scaled_dot") settings["score"] = {"scaled_dot", score};
    settings["window"] = 100;
    settings["sinks"] = 2;
    OneKind::Values values = values_of(settings);
    for (const char* name : {"k", "v"})
      for (float& w : values[name]) w = w > 0.1f ? 1.0f : w < -0.1f ? -1.0f : 0.0f;
    KindInput input = random_input(kRows, kWidth, 7);
    for (float& x : input.inputs[0]) x = x > 0 ? 1.0f : -1.0f;
    const std::vector<float> wide = layer_of(settings, values).run(input);
    for (const char* cache : kNarrow)
      for (const std::vector<Index>& split : std::vector<std::vector<Index>>{{}, {1}, {7, 64}})
        EXPECT_TRUE(
            same_bits(layer_of(with_cache(settings, cache), values).run(input, {.split = split}), wide))
            << cache;
  }
}

double rms(const std::vector<double>& a, const std::vector<double>& b) {
  double squares = 0, all = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    squares += (a[i] - b[i]) * (a[i] - b[i]);
    all += b[i] * b[i];
  }
  return std::sqrt(squares / all);
}

// A key or value is rounded as the twin rounds it unless f32's error, some 4 eps, carries it over the middle
// between two narrow numbers, 2u apart: one of 2u / 4 eps. Those are off by 2u, so that the root mean square
// of all is 2u sqrt(4 eps / 2u); without the rounding it would be u / sqrt(3).
TEST(NarrowCache, TwinRoundsLikewise) {
  const Json rope = {{"theta", 10000}};
  Json softmax = kPlain;
  softmax["qk_norm"] = Json::object();
  softmax["rope"] = rope;
  const Json latent = {{"num_heads", 3},
                       {"qk_nope_head_dim", 12},
                       {"qk_rope_head_dim", 8},
                       {"kv_lora_rank", 20},
                       {"rope", rope}};
  for (const auto& [kind, settings] : {std::pair(kSoftmax, softmax), std::pair(kLatent, latent)})
    for (const char* cache : kNarrow) {
      const Json narrow = with_cache(settings, cache);
      const OneKind::Values values = values_of(narrow, kind);
      const KindInput input = random_input(kRows, kWidth, 8);
      const std::vector<double> fast = testing::widen(layer_of(narrow, values, kind).run(input));
      const double u = unit_roundoff(parse_dtype(cache));
      EXPECT_LE(rms(fast, layer_of(narrow, values, kind).twin(input)), std::sqrt(8 * kEps * u))
          << kind << cache;
      EXPECT_GE(rms(fast, layer_of(settings, values, kind).twin(input)), u / 8) << kind << cache;
    }
}

TEST(NarrowCache, MeetsItsTwinInEveryExample) {
  for (const char* kind : {kSoftmax, kLatent})
    for (const std::string& example : Registry::builtin().find(kind).examples) {
      const Json settings = Json::parse(example);
      if (!settings.contains("cache")) continue;
      SCOPED_TRACE(example);
      const OneKind layer = layer_of(settings, values_of(settings, kind), kind);
      const KindInput input = random_input(kRows, kWidth, 9);
      const double u = unit_roundoff(parse_dtype(settings["cache"].get<std::string>()));
      EXPECT_LE(testing::relative_error(testing::widen(layer.run(input)), layer.twin(input)),
                2 * u + 4 * kEps * std::sqrt(double{kRows}));
    }
}

TEST(NarrowCache, RefusesWhatItWouldSpoil) {
  Json settings = with_cache(kPlain, "f16");
  settings["readout"] = "laser_attention";
  try {
    values_of(settings);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("laser_attention caches"), std::string::npos) << error.what();
  }
  EXPECT_THROW(values_of(with_cache(kPlain, "q8")), Error);
}

}  // namespace
}  // namespace plait
