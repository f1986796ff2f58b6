// The probes of theory as a user meets them: without a model and, where they read one, with it.
#include <gtest/gtest.h>

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
  const std::string saturated = "probe degrees_of_freedom --samples 20 --dim 4 --lambda ";
  EXPECT_NE(plait(saturated + "1e-12").out.find("a larger --lambda"), std::string::npos);
  EXPECT_EQ(plait(saturated + "1").out.find("a larger --lambda"), std::string::npos);
  const Json risks =
      plait("probe single_location_regression --nu 2 --draws 2000 --fit-draws 500 --json -").json();
  EXPECT_NEAR(risks["risks"][0]["bayes"]["mean"].get<double>(), .3525,
              5 * risks["risks"][0]["bayes"]["stderr"].get<double>());
}

TEST(TheoryProbe, MistakesAreOneSentence) {
  small();
  text();
  const std::vector<std::tuple<std::string, int, std::string>> cases = {
      {"probe single_location_regression --law other", 2, "--law"},
      {"probe single_location_regression --key-cosine 1.5", 2, "--key-cosine"},
      {"probe single_location_regression --width 3", 2, "--width"},
      {"probe peak_separation -n 1", 2, "--lengths"},
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
