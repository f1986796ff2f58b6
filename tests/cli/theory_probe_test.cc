// The probes of theory as a user meets them: without a model and, where they read one, with it.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "runtime/base/error.h"
#include "tests/cli/program.h"

namespace plait {
namespace {

using namespace testing;

// Small ones: name, flags, words of the table.
const std::vector<std::tuple<std::string, std::string, std::string>> kRuns = {
    {"single_location_regression",
     "--nu 2 --draws 2000 --fit-draws 500 --width 8 --layer-draws 50 --spikes 2 --heads 3 --steps 5",
     "posterior mean"},
    {"single_location_regression", "--law max -L 4 --nu 3 --noise 0.5 --draws 2000 --fit-draws 500",
     "softplus"},
    {"peak_separation", "-n 2,16,64 --degrees 1,0.5 --gap 3", "taylor_softmax"},
    {"frobenius", "-n 8,16 --width 8 --head-dim 4 --draws 4 --degrees 2 --st 0.5", "in closed form"},
    {"large_prompt_limit", "--variances 1,2 --norm 0.5 -n 10,100 --draws 8", "Derived for long prompts"},
    {"large_prompt_limit", "small.h5 --text small.txt --limit 40", "SHARE LEFT"},
    {"degrees_of_freedom", "--samples 20 --dim 4 --gram-scale inverse", "normal vectors"},
    {"degrees_of_freedom", "small.h5 --text small.txt --limit 40 --samples 20 --features 8", "FEATURES"},
};

TEST(TheoryProbe, WritesTableJsonAndPictures) {
  small();
  text();
  for (const auto& [name, flags, word] : kRuns) {
    SCOPED_TRACE(name + " " + flags);
    const std::string before = cat("probe ", name, " ", flags, " --seed 3 ");
    const Outcome table = plait(before + "--json t.json --plot t.svg");
    ASSERT_EQ(table.code, 0) << table.error;
    EXPECT_NE(table.out.find(word), std::string::npos) << table.out;
    const Json json = Json::parse(read(file("t.json")));
    EXPECT_EQ(json["probe"], name);
    const std::string svg = read(file("t.svg"));
    EXPECT_TRUE(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
    EXPECT_EQ(svg.find("nan"), std::string::npos);
    const Outcome only = plait(before + "--json - --threads 1");
    if (name != "frobenius") {  // its products are the BLAS library's
      EXPECT_EQ(only.json(), json) << "threads change nothing";
    }
  }
  // Rows of one weight have a Jacobian of zeros, whose growth is no number.
  const Outcome sharp = plait("probe frobenius -n 4,8 --draws 2 --degrees 8 --sx 1000 --st 1000");
  EXPECT_EQ(sharp.code, 0) << sharp.error;
  EXPECT_EQ(sharp.out.find("nan"), std::string::npos) << sharp.out;
  const std::string saturated = "probe degrees_of_freedom --samples 20 --dim 4 --lambda ";
  EXPECT_NE(plait(saturated + "1e-12").out.find("a larger --lambda"), std::string::npos);
  EXPECT_EQ(plait(saturated + "1").out.find("a larger --lambda"), std::string::npos);
  const Json risks =
      plait("probe single_location_regression --nu 2 --draws 2000 --fit-draws 500 --json -").json();
  EXPECT_NEAR(risks["risks"][0]["bayes"]["mean"].get<double>(), .3525,
              5 * risks["risks"][0]["bayes"]["stderr"].get<double>());
}

// The file's samples follow the law, and an estimator on them has the risk that the layer had: the draws are
// the same.
TEST(TheoryProbe, SingleLocationSamplesAsAFile) {
  constexpr std::size_t L = 3, D = 8, draws = 200;
  const Json json = plait(
                        "probe single_location_regression --nu 2,5 --draws 2000 --fit-draws 500 --width 8 "
                        "--layer-draws 200 --out samples.npy --json -")
                        .json();
  const std::string bytes = read(file("samples.npy"));
  const std::size_t header = 10 + (static_cast<unsigned char>(bytes[8]) |
                                   static_cast<std::size_t>(static_cast<unsigned char>(bytes[9])) << 8);
  EXPECT_EQ(header % 64, 0u);
  for (const char* part :
       {"('nu', '<f8'), ('tokens', '<f4', (3, 8)), ('location', '<i8'), ('label', '<f8')", "'shape': (400,)"})
    EXPECT_NE(bytes.substr(0, header).find(part), std::string::npos) << part;
  constexpr std::size_t record = 8 + 4 * L * D + 8 + 8;
  ASSERT_EQ(bytes.size(), header + 2 * draws * record);
  const std::vector<double> key = json["data"]["key"], value = json["data"]["value"];
  for (std::size_t n = 0; n < 2; ++n) {
    const Json& softmax = json["risks"][n]["softmax"];
    const double factor = softmax["factor"], scale = softmax["scale"];
    double risk = 0;
    for (std::size_t i = 0; i < draws; ++i) {
      const char* at = bytes.data() + header + (n * draws + i) * record;
      double nu, label;
      float tokens[L * D];
      std::int64_t location;
      std::memcpy(&nu, at, 8);
      std::memcpy(tokens, at + 8, sizeof tokens);
      std::memcpy(&location, at + 8 + sizeof tokens, 8);
      std::memcpy(&label, at + 16 + sizeof tokens, 8);
      ASSERT_EQ(nu, n == 0 ? 2 : 5);
      ASSERT_TRUE(location >= 0 && location < static_cast<std::int64_t>(L));
      double sum = 0, all = 0;
      for (std::size_t l = 0; l < L; ++l) {
        double chi = 0, z = 0;
        for (std::size_t c = 0; c < D; ++c) {
          chi += tokens[l * D + c] * key[c] / std::sqrt(D);
          z += tokens[l * D + c] * value[c] / std::sqrt(D);
        }
        if (static_cast<std::int64_t>(l) == location) {
          EXPECT_NEAR(label, z, 1e-5);
        }
        sum += std::exp(factor * chi) * z;
        all += std::exp(factor * chi);
      }
      const double off = label - scale * sum / all;
      risk += off * off / draws;
    }
    EXPECT_NEAR(risk, softmax["layer"]["mean"].get<double>(), 1e-5) << "f32 against double precision";
  }
  EXPECT_NE(json["risks"][0]["softmax"]["layer"], json["risks"][1]["softmax"]["layer"]);
}

TEST(TheoryProbe, MistakesAreOneSentence) {
  small();
  text();
  const std::vector<std::tuple<std::string, int, std::string>> cases = {
      {"probe single_location_regression --law other", 2, "--law"},
      {"probe single_location_regression --key-cosine 1.5", 2, "--key-cosine"},
      {"probe single_location_regression --width 3", 2, "--width"},
      {"probe single_location_regression --out samples.npy", 2, "--width"},
      {"probe single_location_regression --width 4 --out no-such-folder/samples.npy", 3,
       "no-such-folder/samples.npy"},
      {"probe single_location_regression --nu nan", 2, "nan is not in [0 - 10000]"},
      {"probe peak_separation -n 1", 2, "--lengths"},
      {"probe peak_separation --degrees nan", 2, "nan is not in"},
      {"probe peak_separation --gap nan", 2, "nan is not in"},
      {"probe frobenius --sx nan", 2, "nan is not in"},
      {"probe frobenius --st -1", 2, "-1 is not in [0.001 - 1000]"},
      {"probe frobenius -n 4,4", 2, "names a length twice"},
      {"probe large_prompt_limit --norm nan", 2, "nan is not in [0 - 10]"},
      {"probe large_prompt_limit --variances 1,0", 2, "0 is not in"},
      {"probe large_prompt_limit --variances 1e6 --norm 10", 2, "must be smaller"},
      {"probe degrees_of_freedom --lambda nan", 2, "nan is not in"},
      {"probe frobenius --degrees 0", 2, "--degrees"},
      {"probe large_prompt_limit small.h5", 2, "--text"},
      {"probe large_prompt_limit small.h5 --text small.txt --limit 20 --skip 20", 3, "--skip 20"},
      {"probe degrees_of_freedom small.h5", 2, "--text"},
      {"probe degrees_of_freedom small.h5 --text small.txt --limit 10 --samples 21", 3, "--samples 21"},
      {"probe degrees_of_freedom --dim 4 --deviation 100", 3, "beyond double precision"},
  };
  const int before = count_files();
  for (const auto& [arguments, code, part] : cases) {
    SCOPED_TRACE(arguments);
    expect_error(plait(arguments), code, part);
  }
  EXPECT_EQ(count_files(), before);
}

}  // namespace
}  // namespace plait
