// Whole models against transformers: published folders are converted and meet its logits and its greedy text
// (make_family_goldens.py, README.md).
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "runtime/run/sampler.h"
#include "runtime/run/stream.h"
#include "tests/testing.h"
#include "tools/twins.h"
#include "weights/convert.h"
#include "weights/model_file.h"

namespace plait {
namespace {

namespace fs = std::filesystem;
using testing::same_bits;

static_assert(std::endian::native == std::endian::little, "the golden files are little-endian");

// Both sides compute in float64 with the same weights, so they differ by roundings of 2^-53 only; the largest
// of these goldens' own two paths is 1e-14.
constexpr double kReference = 1e-10;
// float32 throughout: 3 to 5 layers, each of about ten roundings of 6e-8 with sums of up to 130 terms.
constexpr double kExact = 2e-5;

fs::path families() { return fs::path(PLAIT_SOURCE_DIR) / "tests" / "golden" / "families"; }

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("no file " + path.string());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

struct Expected {
  std::vector<Token> tokens;
  std::vector<Index> rows;     // positions whose logits are known
  std::vector<double> logits;  // [rows, vocab]
};

struct Golden {
  std::string source;
  Index vocab = 0, parameters = 0;
  std::vector<Expected> sequences;
  std::vector<Token> prompt, continuation;
};

Golden read_golden(const fs::path& folder) {
  const Json header = Json::parse(bytes_of(folder / "expected.json"));
  const std::string blob = bytes_of(folder / "expected.bin");
  Golden golden{header.at("source"), header.at("vocab"), header.at("parameters"), {}, {}, {}};
  std::size_t offset = 0;
  for (const Json& sequence : header.at("sequences")) {
    Expected expected{sequence.at("tokens"), sequence.at("rows"), {}};
    expected.logits.resize(expected.rows.size() * static_cast<std::size_t>(golden.vocab));
    const std::size_t size = expected.logits.size() * sizeof(double);
    if (offset + size > blob.size()) throw std::out_of_range("golden file is too short");
    std::memcpy(expected.logits.data(), blob.data() + offset, size);
    offset += size;
    golden.sequences.push_back(std::move(expected));
  }
  if (offset != blob.size()) throw std::out_of_range("golden file is too long");
  const Json& greedy = header.at("greedy");
  golden.prompt = golden.sequences.at(greedy.at("prompt")).tokens;
  golden.continuation = greedy.at("tokens").get<std::vector<Token>>();
  return golden;
}

std::vector<std::string> names(const std::string& prefix) {
  std::vector<std::string> all;
  for (const auto& entry : fs::directory_iterator(families())) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix)) all.push_back(name);
  }
  std::sort(all.begin(), all.end());
  return all;
}

std::shared_ptr<const Model> converted(const std::string& name, const ConvertOptions& options,
                                       Conversion* conversion = nullptr) {
  const fs::path file = fs::path(::testing::TempDir()) / ("family_golden_" + name + ".h5");
  const Conversion result = convert_checkpoint((families() / name).string(), file.string(), options);
  if (conversion) *conversion = result;
  auto model = load(file.string());
  fs::remove(file);  // what is mapped stays
  return model;
}

Stream exact_stream(const std::shared_ptr<const Model>& model) {
  StreamOptions options;
  options.compute.numerics = Numerics::exact;
  return Stream(model, options);
}

// Root of the mean squared difference over that of the expected logits. all [tokens, vocab]
template <class T>
double rms_error(const Expected& expected, Index vocab, const std::vector<T>& all) {
  double difference = 0, size = 0;
  for (std::size_t r = 0; r < expected.rows.size(); ++r)
    for (Index c = 0; c < vocab; ++c) {
      const double wanted =
          expected.logits[r * static_cast<std::size_t>(vocab) + static_cast<std::size_t>(c)];
      const double found = all[static_cast<std::size_t>(expected.rows[r] * vocab + c)];
      difference += (found - wanted) * (found - wanted);
      size += wanted * wanted;
    }
  return std::sqrt(difference / size);
}

class FamilyGoldens : public ::testing::TestWithParam<std::string> {
 protected:
  Golden golden_ = read_golden(families() / GetParam());
};

TEST_P(FamilyGoldens, EveryParameterIsRead) {
  Conversion conversion;
  const auto model = converted(GetParam(), {}, &conversion);
  EXPECT_EQ(conversion.parameters, golden_.parameters);
  EXPECT_EQ(model->parameter_count(), golden_.parameters);
}

TEST_P(FamilyGoldens, TheReferenceEngine) {
  const auto model = converted(GetParam(), {});
  for (const Expected& expected : golden_.sequences) {
    const double error = rms_error(expected, golden_.vocab, reference_logits(*model, expected.tokens));
    EXPECT_LE(error, kReference) << golden_.source << ", " << expected.tokens.size() << " tokens";
  }
}

TEST_P(FamilyGoldens, ExactNumericsAtAnySplit) {
  const auto model = converted(GetParam(), {});
  for (const Expected& expected : golden_.sequences) {
    Stream whole = exact_stream(model);
    const auto count = static_cast<Index>(expected.tokens.size());
    const std::vector<float> logits = testing::all_logits(whole, expected.tokens, {count});
    const double error = rms_error(expected, golden_.vocab, logits);
    EXPECT_LE(error, kExact) << golden_.source << ", " << count << " tokens";
    for (const std::vector<Index>& split : std::vector<std::vector<Index>>{{1}, {7, 23}, {3, 1, 61}}) {
      Stream stream = exact_stream(model);
      EXPECT_TRUE(same_bits(testing::all_logits(stream, expected.tokens, split), logits))
          << "pieces of " << split.front() << " of " << count << " tokens";
      EXPECT_EQ(stream.state_digest(), whole.state_digest());
    }
  }
}

TEST_P(FamilyGoldens, GreedyText) {
  const auto model = converted(GetParam(), {});
  Stream stream = exact_stream(model);
  const Sampler sampler({.temperature = 0});
  stream.feed(golden_.prompt);
  std::vector<Token> text;
  while (text.size() < golden_.continuation.size()) {
    text.push_back(sampler.draw(stream.logits(), 0, stream.position(), stream.tokens()));
    stream.feed({text.back()}, Origin::sampled);
  }
  EXPECT_EQ(text, golden_.continuation) << golden_.source;
}

class FalconGoldens : public FamilyGoldens {};

// Folding multipliers into f32 weights rounds every weight once more, and is the same function otherwise.
TEST_P(FalconGoldens, FoldedMultipliers) {
  ConvertOptions options;
  options.dtype = DType::f32;
  options.multipliers = Multipliers::folded;
  const auto model = converted(GetParam(), options);
  const Expected& longest = golden_.sequences.back();
  EXPECT_LE(rms_error(longest, golden_.vocab, reference_logits(*model, longest.tokens)), kExact);
}

std::string name_of_case(const ::testing::TestParamInfo<std::string>& info) { return info.param; }

INSTANTIATE_TEST_SUITE_P(All, FamilyGoldens, ::testing::ValuesIn(names("")), name_of_case);
INSTANTIATE_TEST_SUITE_P(All, FalconGoldens, ::testing::ValuesIn(names("falcon_h1")), name_of_case);

}  // namespace
}  // namespace plait
