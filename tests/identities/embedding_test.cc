#include <gtest/gtest.h>

#include "runtime/base/half.h"
#include "tests/one_kind.h"
#include "tests/testing.h"

namespace plait {
namespace {

using testing::OneKind;
using testing::same_bits;

constexpr Index kVocab = 97, kWidth = 45;  // neither fills its panel

Surroundings surroundings() {
  Surroundings s;
  s.width = s.model_width = kWidth;
  s.vocab = kVocab;
  return s;
}

testing::KindInput every_token() {
  testing::KindInput input;
  input.rows = kVocab;
  for (Token t = 0; t < kVocab; ++t) input.tokens.push_back(kVocab - 1 - t);
  return input;
}

std::vector<float> rows_of(const std::vector<float>& weight, const std::vector<Token>& tokens, float factor) {
  std::vector<float> rows;
  for (const Token token : tokens)
    for (Index c = 0; c < kWidth; ++c)
      rows.push_back(factor * weight[static_cast<std::size_t>(token * kWidth + c)]);
  return rows;
}

TEST(Embedding, IsTheRowsOfItsWeight) {
  const auto values = OneKind::random_values("embedding", {}, surroundings(), 1);
  for (const double multiplier : {1.0, 0.3}) {
    const OneKind embedding("embedding", {{"multiplier", multiplier}}, surroundings(), values);
    const auto input = every_token();
    const auto expected = rows_of(values.at("weight"), input.tokens, static_cast<float>(multiplier));
    EXPECT_TRUE(same_bits(embedding.run(input), expected)) << multiplier;
    EXPECT_TRUE(same_bits(embedding.run(input, {.split = {1, 5}}), expected)) << multiplier;
  }
}

TEST(Embedding, NarrowRowsWidenExactly) {
  auto values = OneKind::random_values("embedding", {}, surroundings(), 2);
  for (float& w : values["weight"]) w = to_float(to_bf16(w));
  const OneKind narrow("embedding", {}, surroundings(), values, DType::bf16);
  EXPECT_TRUE(same_bits(narrow.run(every_token()), rows_of(values["weight"], every_token().tokens, 1)));
}

}  // namespace
}  // namespace plait
