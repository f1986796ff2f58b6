// plait verify: prints what tools/verification.h found.
#include <CLI/CLI.hpp>
#include <algorithm>

#include "runtime/base/error.h"
#include "runtime/base/parallel.h"
#include "tools/program.h"
#include "tools/verbs.h"
#include "tools/verification.h"

namespace plait {
namespace {

// Tokens verified unless -n says otherwise: past every grid of the arithmetic (the largest is the key span of
// 1,024), or fewer where double precision would take minutes.
constexpr Index kTokens = 1100, kTokensOfLargeModels = 320;
constexpr Index kLargeModel = 50'000'000;  // parameters

// Any text does; a trained model is at home in words.
constexpr std::string_view kText =
    "The river had been rising since the morning, and by noon the miller's boys were carrying sacks of grain "
    "up to "
    "the loft.\n\"Will it reach the wheel?\" asked the youngest.\n\"It reached the wheel in my father's "
    "time,\" said "
    "the old man, \"and it will reach it in yours.\"\n\nNobody spoke after that. They counted: 41 sacks, 42, "
    "43; and "
    "the water went on counting too, stone by stone, in a voice that everybody knew.\n";

struct Verify {
  Common common;
  std::string model, text;
  Index count = 0;

  int run() const;
};

// Where a model takes no text, the built-in one's bytes are as good as any other tokens.
std::vector<Token> built_in_tokens(const Model& model) {
  return has_tokenizer(model) ? tokenizer_of(model)->encode(kText) : ByteTokenizer().encode(kText);
}

std::vector<Token> take_tokens(const Model& model, const std::vector<Token>& once, const std::string& origin,
                               Index count) {
  if (once.empty()) fail(origin, " holds no tokens");
  std::vector<Token> tokens;
  for (Index i = 0; i < count; ++i) tokens.push_back(once[static_cast<std::size_t>(i) % once.size()]);
  for (Token& token : tokens) token = static_cast<Token>(token % model.card().vocab);
  return tokens;
}

std::string scientific(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2e", value);
  return text;
}

std::string describe(const Verification& v) {
  std::vector<std::vector<std::string>> rows = {{"NODE", "KIND", "NUMERICS", "ERROR", "BOUND", ""}};
  for (const NodeCheck& n : v.nodes)
    rows.push_back({n.name, n.kind, name_of(n.numerics), scientific(n.rel_error), scientific(n.bound),
                    n.passed() ? "" : "FAILED"});
  std::string text = "Each node against its double-precision twin, on the fast engine's own inputs:\n";
  text += table(rows, "lllrrl");
  text += cat("\nLogits end to end, against the chained twins: exact ", scientific(v.logit_error_exact),
              ", fast ", scientific(v.logit_error_fast),
              " (not judged: every node's error counts in it)\n\nEqual bits:\n");
  rows.clear();
  for (const EqualityCheck& c : v.checks)
    rows.push_back({name_of(c.numerics), c.name, c.passed ? "equal" : "FAILED", c.detail});
  return text + table(rows, "llll");
}

Json to_json(const Verification& v) {
  Json json = {{"passed", v.passed()},
               {"nodes", Json::array()},
               {"checks", Json::array()},
               {"logit_error", {{"exact", v.logit_error_exact}, {"fast", v.logit_error_fast}}}};
  for (const NodeCheck& n : v.nodes)
    json["nodes"].push_back({{"name", n.name},
                             {"kind", n.kind},
                             {"numerics", name_of(n.numerics)},
                             {"rel_error", n.rel_error},
                             {"bound", n.bound},
                             {"passed", n.passed()}});
  for (const EqualityCheck& c : v.checks)
    json["checks"].push_back(
        {{"name", cat(name_of(c.numerics), ": ", c.name)}, {"passed", c.passed}, {"detail", c.detail}});
  return json;
}

int Verify::run() const {
  const auto opened = open_model(model, common);
  const Compute compute = common.compute(Numerics::exact);
  const Index tokens = count > 0                                 ? count
                       : opened->parameter_count() > kLargeModel ? kTokensOfLargeModels
                                                                 : kTokens;
  const std::vector<Token> ids =
      text.empty()
          ? take_tokens(*opened, built_in_tokens(*opened), "the built-in text", tokens)
          : take_tokens(*opened, tokenizer_of(*opened)->encode(read_file(text)), cat("'", text, "'"), tokens);
  Progress progress(common, "verifying");
  VerifyOptions options;
  options.threads = compute.threads;
  options.progress = [&](double fraction, const std::string& what) { progress.update(fraction, what); };
  Stopwatch watch;
  const Verification result = verify(opened, ids, options);
  progress.clear();

  const auto failed_nodes =
      std::count_if(result.nodes.begin(), result.nodes.end(), [](auto& n) { return !n.passed(); });
  const auto failed_checks =
      std::count_if(result.checks.begin(), result.checks.end(), [](auto& c) { return !c.passed; });
  if (!common.json_only()) {
    print(describe(result));
    print(cat("\n", opened->card().name, ": ", result.passed() ? "verified" : "NOT verified", " on ", tokens,
              " tokens in ", fixed(watch.seconds(), 1), " s; ",
              result.nodes.size() - static_cast<std::size_t>(failed_nodes), " of ", result.nodes.size(),
              " node comparisons and ", result.checks.size() - static_cast<std::size_t>(failed_checks),
              " of ", result.checks.size(), " equalities hold\n"));
  }
  Json json = to_json(result);
  json["model"] = opened->card().name;
  json["model_sha256"] = opened->digest();
  json["tokens"] = tokens;
  json["isa"] = name_of(compute.isa);
  json["threads"] = compute.threads;
  flush_output();
  write_json(common, json);
  return result.passed() ? kDone : kCheckFailed;
}

}  // namespace

void add_verify(CLI::App& program, Action& chosen) {
  auto args = std::make_shared<Verify>();
  CLI::App* verb =
      program.add_subcommand("verify", "Check a model against double precision, and equality of bits");
  verb->add_option("MODEL", args->model, "A model file")->required();
  verb->add_option("--text", args->text, "The text to verify on (default: a built-in one)")
      ->type_name("FILE");
  verb->add_option("-n", args->count,
                   "Tokens (default: 1100; 320 above 50 M parameters); the text is repeated if short")
      ->check(CLI::Range(Index{8}, Index{1} << 24))
      ->type_name("N");
  add_common(*verb, args->common, "not used: both are verified");
  verb->callback([args, &chosen] { chosen = [args] { return args->run(); }; });
}

}  // namespace plait
