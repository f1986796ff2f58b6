// Time to the first token of a long prompt: cold, cold and stored on the way, and again from a prefix store
// (the same prompt, and one that parts from it near its end). Without a model it makes one of Qwen3.5-0.8B
// shapes with random bf16 weights. bench_store --help lists the flags.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>

#include "bench/program.h"
#include "bench/temporary_model.h"
#include "runtime/base/error.h"
#include "runtime/kernels/kernels.h"
#include "tests/files.h"
#include "weights/model_file.h"
#include "weights/prefix_store.h"

namespace plait {
namespace {

constexpr Index kPiece = 512;

struct Settings {
  BenchFlags flags;
  std::string model, numerics = "fast";
  Index tokens = 8192;
};

void cold(const std::shared_ptr<const Model>& model, const StreamOptions& options,
          std::span<const Token> prompt) {
  Stream stream(model, options);
  for (std::size_t at = 0; at < prompt.size(); at += kPiece)
    stream.feed(prompt.subspan(at, std::min<std::size_t>(kPiece, prompt.size() - at)));
}

struct Stored {
  double seconds = 1e30, saving = 0;
  Index hit = 0;
  PrefixStore::Tally tally;
};

Stored through_store(const std::string& folder, const std::shared_ptr<const Model>& model,
                     const StreamOptions& options, std::span<const Token> prompt) {
  Stored result;
  result.seconds = plait::seconds([&] {
    PrefixStore store({folder, std::uint64_t{1} << 40});
    PrefixStore::Found found = store.find(model, options, prompt);
    result.hit = found.hit;
    for (const Index stop : found.saves) {
      const auto at = static_cast<std::size_t>(found.stream.position());
      found.stream.feed(prompt.subspan(at, static_cast<std::size_t>(stop) - at));
      result.saving += seconds([&] { store.save(found.owner, found.stream); });
    }
    result.tally = store.tally();
  });
  if (!result.tally.not_saved.empty()) fail(result.tally.not_saved);
  return result;
}

void report(const Settings& s, const std::string& path) {
  const std::shared_ptr<const Model> model = load(path);
  StreamOptions options;
  options.compute = {parse_numerics(s.numerics), resolve_isa(Isa::automatic), s.flags.threads};
  std::vector<Token> prompt;
  for (Index i = 0; i < s.tokens; ++i)
    prompt.push_back(static_cast<Token>((i * 7919 + 13) % model->card().vocab));
  std::vector<Token> parting = prompt;
  parting.back() = (parting.back() + 1) % static_cast<Token>(model->card().vocab);

  double plain = 1e30;
  Stored storing, again, near;
  for (Index repeat = 0; repeat < s.flags.repeat; ++repeat) {
    const testing::Folder folder;
    plain = std::min(plain, seconds([&] { cold(model, options, prompt); }));
    const auto best = [](Stored& all, const Stored& one) {
      if (one.seconds < all.seconds) all = one;
    };
    best(storing, through_store(folder.path(), model, options, prompt));
    best(again, through_store(folder.path(), model, options, prompt));
    best(near, through_store(folder.path(), model, options, parting));
  }
  if (again.hit != s.tokens) fail("the stored prompt was not found whole");
  std::printf("%td tokens, %s, %s, %d threads, best of %td; to the first token's logits\n", s.tokens,
              name_of(options.compute.numerics), name_of(options.compute.isa), options.compute.threads,
              s.flags.repeat);
  std::printf("cold prefill                      %9.4f s\n", plain);
  std::printf("cold, stored on the way           %9.4f s  %.2f of cold, %td entries, %.1f MB\n",
              storing.seconds, storing.seconds / plain, storing.tally.saved,
              static_cast<double>(storing.tally.bytes) / 1e6);
  std::printf("  of which copying the states      %9.4f s  %.4f of cold, %.4f s for each entry\n",
              storing.saving, storing.saving / plain,
              storing.saving / static_cast<double>(storing.tally.saved));
  std::printf("the same prompt again             %9.4f s  %.4f of cold, the model not run\n", again.seconds,
              again.seconds / plain);
  std::printf("another last token                %9.4f s  %.4f of cold, %td tokens found\n", near.seconds,
              near.seconds / plain, near.hit);
}

}  // namespace
}  // namespace plait

int main(int argc, char** argv) {
  plait::Settings s;
  CLI::App app("Time to the first token of a prompt that a prefix store has seen, against cold prefill.",
               "bench_store");
  app.add_option("MODEL", s.model, "A model file (default: Qwen3.5-0.8B shapes, random bf16 weights)");
  app.add_option("--tokens", s.tokens, "Tokens of the prompt")
      ->check(CLI::Range(2, 1 << 24))
      ->capture_default_str();
  app.add_option("--numerics", s.numerics, "fast or exact")
      ->check(CLI::IsMember({"fast", "exact"}))
      ->capture_default_str();
  s.flags.repeat = 1;
  s.flags.add_to(app);
  return plait::run_bench(app, argc, argv, [&] {
    if (s.flags.smoke) s.tokens = 600, s.flags.repeat = 1;
    if (!s.model.empty()) return plait::report(s, s.model);
    const plait::TemporaryModel model(s.flags.smoke ? plait::ModelSize::smoke : plait::ModelSize::full);
    plait::report(s, model.path());
  });
}
