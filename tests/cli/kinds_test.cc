// plait kinds KEY finds mechanisms that are options of a kind, and says which settings no source confirms.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/cli/program.h"

namespace plait {
namespace {

using namespace testing;

Json kinds() {
  static const Json all = plait("kinds --json -").json();
  return all;
}

std::string help_of(const std::string& kind, const std::string& setting) {
  for (const Json& entry : kinds())
    if (entry["kind"] == kind)
      for (const Json& option : entry["options"])
        if (option["name"] == setting) return option["help"];
  ADD_FAILURE() << kind << " does not list " << setting;
  return "";
}

// What the specification marks UNCONFIRMED: a setting with its kind.
TEST(Kinds, SayWhatNoSourceConfirms) {
  const std::map<std::string, std::vector<std::string>> settings = {
      {"based", {"eps"}},
      {"cosformer", {"M"}},
      {"linear_attention", {"M", "eps"}},
      {"mesa_net", {"cg_tolerance"}},
      {"polynomial_attention", {"c", "scale_mode"}},
      {"power_retention", {"output_norm", "logit_scale"}},
      {"rebased", {"qk_norm", "eps"}},
      {"softmax_attention",
       {"readout", "softermax", "integral_attention.signals", "integral_attention.rope_per_signal",
        "focal_attention.mode", "focal_attention.tau_min", "focal_attention.tau_max", "scalable_softmax.bias",
        "scalable_softmax.ssmax_replaces_scale", "sigmoid_attention.bias_mode", "self_adjust_softmax.variant",
        "affine_scaled_attention.gate"}}};
  for (const auto& [kind, names] : settings)
    for (const std::string& name : names)
      EXPECT_NE(help_of(kind, name).find("UNCONFIRMED"), std::string::npos) << kind << " " << name;
}

TEST(Kinds, SayThatAllOfAConditionedQueryIsUnconfirmed) {
  int conditioned = 0;
  for (const Json& entry : kinds())
    for (const Json& option : entry["options"])
      if (option["name"].get<std::string>().rfind("query.", 0) == 0) {
        ++conditioned;
        EXPECT_NE(option["help"].get<std::string>().find("UNCONFIRMED"), std::string::npos)
            << entry["kind"] << " " << option["name"];
      }
  // 8 kinds with form, lambda_source, lambda, center and normalise; channel_decay of one
  EXPECT_EQ(conditioned, 41);
}

struct Mechanism {
  std::string key, kind, card;
};

// The keys of the tables "Mechanism -> where it lives" of the specification that are options here.
const std::vector<Mechanism> kMechanisms = {
    {"self_adjust_softmax", "softmax_attention", R"("readout": "self_adjust_softmax")"},
    {"scalable_softmax", "softmax_attention", R"("score": [.., "scalable_softmax"])"},
    {"periodic_softmax", "softmax_attention", R"("normaliser": "periodic_softmax")"},
    {"sin_softmax", "softmax_attention", R"("score": [.., "sin_softmax"])"},
    {"row_standardise", "softmax_attention", R"("score": [.., "row_standardise"])"},
    {"focal_attention", "softmax_attention", R"("score": [.., "focal_attention"])"},
    {"scaled_signed_averaging", "softmax_attention", R"("score": [.., "scaled_signed_averaging"])"},
    {"affine_scaled_attention", "softmax_attention", R"("readout": "affine_scaled_attention")"},
    {"linear_unnormalised", "softmax_attention", R"("normaliser": "linear_unnormalised")"},
    {"erf_unnormalised", "softmax_attention", R"("normaliser": "erf_unnormalised")"},
    {"softplus_normalised", "softmax_attention", R"("normaliser": "softplus_normalised")"},
    {"sigmoid_attention", "softmax_attention", R"("normaliser": "sigmoid_attention")"},
    {"integral_attention", "softmax_attention", R"("score": [.., "integral_attention"])"},
    {"cog_attention", "softmax_attention", R"("normaliser": "cog_attention")"},
    {"softermax", "softmax_attention", R"("normaliser": "softermax")"},
    {"taylor_softmax", "softmax_attention", R"("normaliser": "taylor_softmax")"},
    {"positive_random_features", "linear_attention", R"("feature_map": "positive_random_features")"},
    {"laser_attention", "softmax_attention", R"("readout": "laser_attention")"},
    {"bayes_softmax", "softmax_attention", R"("readout": "bayes_softmax")"},
    {"bilinear_mlr", "softmax_attention", R"("score": [.., "bilinear_mlr"])"},
    {"bilinear_btt", "softmax_attention", R"("score": [.., "bilinear_btt"])"},
    {"mlr_attention", "softmax_attention", R"("score": [.., "mlr_attention"])"},
    {"curvature_conditioned_query", "delta_net", R"("query": {"form": "curvature_conditioned_query"})"},
    {"sigmoid_gate", "softmax_attention", R"("gate": "sigmoid")"},
    {"sigmoid_gate", "gated_delta_net", R"("gate": "sigmoid")"},
    {"softmax_one", "softmax_attention", R"("normaliser": "softmax_one")"},
    {"sink_softmax", "softmax_attention", R"("normaliser": "sink_softmax")"},
    {"differential_attention", "softmax_attention", R"("readout": "differential_attention")"},
    {"forgetting_attention", "softmax_attention", R"("score": [.., "forgetting_attention"])"},
    {"adaptive_computation_pruning", "softmax_attention", R"("prune": "adaptive_computation_pruning")"},
    {"shift_linear", "softmax_attention", R"("shift_linear": boolean)"},
    {"parallax_attention", "softmax_attention", R"("readout": "parallax_attention")"},
    {"taylor2", "linear_attention", R"("feature_map": "taylor2")"},
    {"scaled_dot", "softmax_attention", R"("score": [.., "scaled_dot"])"},
    {"alibi", "softmax_attention", R"("score": [.., "alibi"])"},
    {"logit_softcap", "softmax_attention", R"("score": [.., "logit_softcap"])"},
    {"stick_breaking", "softmax_attention", R"("normaliser": "stick_breaking")"}};

// The other keys of the tables that are here: kinds and probes.
const std::vector<std::string> kOtherKeys = {"softmax_free_attention",
                                             "sinkhorn_attention",
                                             "cosformer",
                                             "polynomial_attention",
                                             "nats_l",
                                             "normalization_equivariance",
                                             "mesa_net",
                                             "global_pathway",
                                             "power_retention",
                                             "polysketch_attention",
                                             "based",
                                             "rebased",
                                             "linear_attention",
                                             "gated_linear_attention",
                                             "mamba2",
                                             "delta_net",
                                             "gated_delta_net",
                                             "ttt_linear",
                                             "path_attention",
                                             "wall_attention",
                                             "single_location_regression",
                                             "peak_separation",
                                             "degrees_of_freedom",
                                             "vertex_softmax",
                                             "large_prompt_limit",
                                             "attention_thermodynamics",
                                             "attention_sinks"};

TEST(Kinds, FindEveryMechanismThatIsAnOption) {
  for (const auto& [key, kind, card] : kMechanisms) {
    bool found = false;
    for (const Json& option : plait("kinds " + key + " --json -").json()) {
      const std::vector<std::string> owners = option["kinds"];
      if (option["card"] != card || std::count(owners.begin(), owners.end(), kind) == 0) continue;
      found = true;
      EXPECT_FALSE(option["options"].empty()) << key;
      EXPECT_FALSE(option["example"].is_null()) << key;
    }
    EXPECT_TRUE(found) << key << " is not found as " << card << " of " << kind;
    const std::string text = plait("kinds " + key).out;
    EXPECT_NE(text.find(kind), std::string::npos) << key;
    EXPECT_NE(text.find(card), std::string::npos) << key;
  }
}

TEST(Kinds, FindKindsAndProbesByTheirKeys) {
  for (const std::string& key : kOtherKeys) {
    const Outcome outcome = plait("kinds " + key);
    EXPECT_EQ(outcome.code, 0) << key << ": " << outcome.error;
    EXPECT_NE(outcome.out.find(key), std::string::npos);
  }
  EXPECT_EQ(plait("kinds vertex_softmax --json -").json()[0]["probe"], "vertex_softmax");
}

std::set<std::string> settings_of(const std::string& key) {
  std::set<std::string> names;
  for (const Json& option : plait("kinds " + key + " --json -").json())
    for (const Json& setting : option["options"]) names.insert(setting["name"]);
  return names;
}

// Kinds, settings, choices, names that only a help text has, probes.
TEST(Kinds, SuggestWhatWasMeant) {
  const std::pair<const char*, const char*> mistakes[] = {
      {"gated_deltanet", "gated_delta_net"},   {"laser", "laser_attention"},
      {"laser_atention", "laser_attention"},   {"sigmoid_gat", "sigmoid_gate"},
      {"gate_granularty", "gate_granularity"}, {"atention_sink", "attention_sinks"}};
  for (const auto& [mistyped, meant] : mistakes)
    expect_error(plait(cat("kinds ", mistyped)), 3,
                 cat("option or probe '", mistyped, "'; did you mean '", meant, "'?").c_str());
}

TEST(Kinds, ShowAnOptionWithItsSettings) {
  using Names = std::set<std::string>;
  EXPECT_EQ(settings_of("laser_attention"), (Names{"readout"}));
  EXPECT_EQ(settings_of("positive_random_features"), (Names{"feature_map", "M"}));
  EXPECT_EQ(settings_of("forgetting_attention"), (Names{"score", "forgetting_attention.type", "prune"}));
  EXPECT_EQ(settings_of("adaptive_computation_pruning"),
            (Names{"prune", "adaptive_computation_pruning.log_tol", "adaptive_computation_pruning.max_length",
                   "adaptive_computation_pruning.bound"}));
  EXPECT_EQ(settings_of("curvature_conditioned_query"),
            (Names{"query.form", "query.lambda_source", "query.lambda", "query.center", "query.normalise",
                   "query.channel_decay"}));
}

}  // namespace
}  // namespace plait
