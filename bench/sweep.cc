// A single-site sweep (mixer and MLP of every block, zeroed one at a time) in the wavefront: forward passes
// of arithmetic, and the time as a multiple of those passes at the speed of this machine's own prefill,
// measured in turns. Without a model it makes one of Qwen3.5-0.8B shapes with random bf16 weights.
// bench_sweep --help lists the flags.
#include <algorithm>
#include <cstdio>
#include <string>

#include "bench/program.h"
#include "bench/temporary_model.h"
#include "runtime/base/error.h"
#include "runtime/kernels/kernels.h"
#include "runtime/run/wavefront.h"
#include "weights/model_file.h"

namespace plait {
namespace {

struct Settings {
  BenchFlags flags;
  std::string model, numerics = "fast";
  Index tokens = 512, memory_mib = 4096;
  double scored = 0.05;
};

std::vector<std::shared_ptr<const EditPlan>> single_sites(const Model& model) {
  std::vector<std::shared_ptr<const EditPlan>> plans = {nullptr};
  for (const Group& group : model.graph().groups) {
    if (!group.name.ends_with(".mixer") && !group.name.ends_with(".mlp")) continue;
    Edit edit;
    edit.node = group.name;
    edit.shadow = Shadow::off;
    plans.push_back(std::make_shared<const EditPlan>(model, EditList{edit}));
  }
  return plans;
}

void report(const Settings& s, const std::string& path) {
  const std::shared_ptr<const Model> model = load(path);
  const Compute compute{parse_numerics(s.numerics), resolve_isa(Isa::automatic), s.flags.threads};
  std::vector<Token> tokens;
  for (Index i = 0; i < s.tokens; ++i)
    tokens.push_back(static_cast<Token>((i * 7919 + 13) % model->card().vocab));
  std::vector<Index> scored;
  const auto step = static_cast<Index>(std::max(1.0, 1 / s.scored));
  for (Index i = step - 1; i + 1 < s.tokens; i += step) scored.push_back(i);

  const auto plans = single_sites(*model);
  const VariantDocument clean{tokens, {}, nullptr}, document{tokens, scored, nullptr};
  const WavefrontOptions options{compute, static_cast<std::size_t>(s.memory_mib) << 20};
  double prefill = 1e30, sweep = 1e30, forwards = 0;
  Index tiles = 0;
  for (Index repeat = 0; repeat < s.flags.repeat; ++repeat) {
    Wavefront baseline(model, {nullptr}, options);
    prefill = std::min(prefill, seconds([&] { baseline.run({&clean, 1}, {}); }));
    Wavefront all(model, plans, options);
    sweep = std::min(sweep, seconds([&] { all.run({&document, 1}, [](const VariantLogits&) {}); }));
    forwards = all.cost().forwards_equiv();
    tiles = all.cost().tiles;
  }
  // The output node's share of a forward pass, by multiplications: rows scored, one per variant.
  const Walk walk(*model, compute);
  const double head = static_cast<double>(plans.size()) * static_cast<double>(scored.size()) *
                      walk.output_row_cost() / (static_cast<double>(s.tokens) * walk.row_cost());
  const double whole = forwards + head;
  std::printf("%zu sites, %td tokens, %zu scored, %s, %s, %d threads\n", plans.size() - 1, s.tokens,
              scored.size(), name_of(compute.numerics), name_of(compute.isa), compute.threads);
  std::printf("forwards_equiv              %7.2f  through the layers, the clean one included, %td tiles\n",
              forwards, tiles);
  std::printf("  with the output node      %7.2f\n", whole);
  std::printf("one prefill                 %7.3f s\n", prefill);
  std::printf("the sweep                   %7.3f s\n", sweep);
  std::printf("time / (forwards x prefill) %7.2f  (target: at most 1.15)\n", sweep / (whole * prefill));
}

}  // namespace
}  // namespace plait

int main(int argc, char** argv) {
  plait::Settings s;
  CLI::App app("A sweep of single sites: forward passes of arithmetic, and time against prefill.",
               "bench_sweep");
  app.add_option("MODEL", s.model, "A model file (default: Qwen3.5-0.8B shapes, random bf16 weights)");
  app.add_option("--tokens", s.tokens, "Tokens")->check(CLI::Range(32, 1 << 20))->capture_default_str();
  app.add_option("--scored", s.scored, "Share of the positions that are scored")
      ->check(CLI::Range(0.001, 1.0))
      ->capture_default_str();
  app.add_option("--memory", s.memory_mib, "Budget in MiB")
      ->check(CLI::Range(16, 1 << 20))
      ->capture_default_str();
  app.add_option("--numerics", s.numerics, "fast or exact")
      ->check(CLI::IsMember({"fast", "exact"}))
      ->capture_default_str();
  s.flags.add_to(app);
  return plait::run_bench(app, argc, argv, [&] {
    if (s.flags.smoke) s.tokens = 64, s.flags.repeat = 1;
    if (!s.model.empty()) return plait::report(s, s.model);
    const plait::TemporaryModel model(s.flags.smoke ? plait::ModelSize::smoke : plait::ModelSize::full);
    plait::report(s, model.path());
  });
}
