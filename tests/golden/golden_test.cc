// Mixers against numbers made by other people's code (make_goldens.py, README.md).
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>

#include "tests/one_kind.h"
#include "tests/testing.h"

namespace plait {
namespace {

using testing::OneKind;
using testing::same_bits;

static_assert(std::endian::native == std::endian::little, "the golden files are little-endian");

struct Golden {
  std::string kind, source;
  Json settings;
  Surroundings surroundings;
  testing::KindInput input;
  OneKind::Values values;
  std::vector<double> expected;  // [rows, width]
};

std::filesystem::path folder() { return std::filesystem::path(PLAIT_SOURCE_DIR) / "tests" / "golden"; }

std::string bytes_of_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

template <class T>
std::vector<T> numbers(const Json& array, const std::string& blob) {
  std::size_t count = 1;
  for (const Json& size : array.at("shape")) count *= size.get<std::size_t>();
  std::vector<T> values(count);
  const auto offset = array.at("offset").get<std::size_t>();
  if (offset + count * sizeof(T) > blob.size()) throw std::out_of_range("golden file is too short");
  std::memcpy(values.data(), blob.data() + offset, count * sizeof(T));
  return values;
}

Golden read_golden(const std::string& name) {
  const Json header = Json::parse(bytes_of_file(folder() / (name + ".json")));
  const std::string blob = bytes_of_file(folder() / (name + ".bin"));
  Golden golden;
  golden.kind = header.at("kind");
  golden.source = header.at("source");
  golden.settings = header.at("settings");
  golden.surroundings.width = golden.surroundings.model_width = header.at("width");
  golden.surroundings.causal = header.value("causal", true);
  for (const Json& array : header.at("arrays")) {
    const std::string tensor = array.at("name");
    if (tensor == "y") {
      golden.expected = numbers<double>(array, blob);
    } else if (tensor == "x" || tensor == "x1") {  // the input ports
      golden.input.rows = array.at("shape").at(0);
      golden.input.inputs.push_back(numbers<float>(array, blob));
    } else {
      golden.values[tensor] = numbers<float>(array, blob);
    }
  }
  golden.surroundings.inputs = static_cast<Index>(golden.input.inputs.size());
  return golden;
}

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const auto& entry : std::filesystem::directory_iterator(folder()))
    if (entry.path().extension() == ".json") all.push_back(entry.path().stem().string());
  std::sort(all.begin(), all.end());
  return all;
}

// Terms on the way from x to y: the projection, the tokens a state or a softmax sums, the output projection.
double terms(const Golden& golden) {
  Index columns = 0;  // of the output projection [width, columns]
  for (const char* output : {"o", "out"})
    if (golden.values.contains(output))
      columns = static_cast<Index>(golden.values.at(output).size()) / golden.surroundings.width;
  return static_cast<double>(golden.surroundings.width + golden.input.rows + columns);
}

class GoldenNumbers : public ::testing::TestWithParam<std::string> {};

// Both are float64 of the same formula in another order, so they differ by roundings of 2^-53 as the layer
// differs from either by roundings of 2^-24; a wrong constant, tap, order or epsilon is off by far more.
TEST_P(GoldenNumbers, TheTwin) {
  const Golden golden = read_golden(GetParam());
  const OneKind mixer(golden.kind, golden.settings, golden.surroundings, golden.values);
  const double eps = std::numeric_limits<double>::epsilon();
  EXPECT_LE(testing::relative_error(mixer.twin(golden.input), golden.expected),
            mixer.kind().bound_factor * eps * std::sqrt(terms(golden)))
      << golden.source;
}

TEST_P(GoldenNumbers, TheLayer) {
  const Golden golden = read_golden(GetParam());
  const OneKind mixer(golden.kind, golden.settings, golden.surroundings, golden.values);
  const std::vector<float> whole = mixer.run(golden.input);
  const double eps = std::numeric_limits<float>::epsilon();
  EXPECT_LE(testing::relative_error(testing::widen(whole), golden.expected),
            mixer.kind().bound_factor * eps * std::sqrt(terms(golden)))
      << golden.source;
  if (!golden.surroundings.causal) return;  // encoders take a sequence whole
  for (const std::vector<Index>& split : std::vector<std::vector<Index>>{{1}, {7, 23}})
    EXPECT_TRUE(same_bits(mixer.run(golden.input, {.split = split}), whole)) << "split " << split[0];
}

std::string name_of_case(const ::testing::TestParamInfo<std::string>& info) { return info.param; }

INSTANTIATE_TEST_SUITE_P(All, GoldenNumbers, ::testing::ValuesIn(names()), name_of_case);

// Every mixer kind of the registry has golden numbers.
TEST(Goldens, CoverTheMixers) {
  std::vector<std::string> covered;
  for (const std::string& name : names()) covered.push_back(read_golden(name).kind);
  for (const auto& [key, kind] : Registry::builtin().kinds()) {
    if (kind.group != "recurrent" && kind.group != "attention") continue;
    EXPECT_NE(std::find(covered.begin(), covered.end(), key), covered.end()) << key;
  }
}

}  // namespace
}  // namespace plait
