// The mean time per token of a long stream, early and late: the second and the last 100,000 tokens of
// 2,000,000 on the bundled model. A stream whose state does not grow costs the same at both. Beside it the
// same tokens go through a second stream in other splits, untimed; after each part the bits of both are
// compared. bench_stream --help lists the flags.
#include <algorithm>
#include <array>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include "bench/program.h"
#include "runtime/base/error.h"
#include "runtime/kernels/kernels.h"
#include "runtime/run/stream.h"
#include "runtime/run/windows.h"
#include "weights/model_file.h"

namespace plait {
namespace {

struct Settings {
  BenchFlags flags;
  std::string model = PLAIT_SOURCE_DIR "/weights/models/tiny-hybrid.h5", numerics = "fast";
  Index tokens = 2'000'000, part = 100'000, window = 0;
  std::size_t keep = 64 << 20;
};

// Feeds tokens in pieces whose sizes go on from one call to the next.
class Splitter {
 public:
  void feed(Stream& stream, std::span<const Token> tokens) {
    while (!tokens.empty()) {
      const std::size_t count = std::min(kSizes[next_++ % kSizes.size()], tokens.size());
      stream.feed(tokens.first(count));
      tokens = tokens.subspan(count);
    }
  }

 private:
  static constexpr std::array<std::size_t, 6> kSizes = {1, 300, 7, 2048, 64, 1000};
  std::size_t next_ = 0;
};

void compare(const Stream& stream, const Stream& other) {
  const auto a = stream.logits(), b = other.logits();
  if (!std::ranges::equal(std::as_bytes(a), std::as_bytes(b)) ||
      stream.state_digest() != other.state_digest())
    fail("other splits gave other bits within the first ", stream.position(), " tokens");
}

void report(const Settings& s) {
  const std::shared_ptr<const Model> model = load(s.model);
  StreamOptions options;
  options.compute = {parse_numerics(s.numerics), resolve_isa(Isa::automatic), s.flags.threads};
  options.keep = s.keep;
  if (s.window > 0) options.edits = window_edits(*model, s.window, 0);
  Stream stream(model, options), other(model, options);
  Splitter splitter;
  std::vector<double> parts;
  std::printf("%s, %s, %s, %d threads, %zu bytes for boundaries\n", model->card().name.c_str(),
              name_of(options.compute.numerics), name_of(options.compute.isa), options.compute.threads,
              s.keep);
  std::vector<Token> tokens(static_cast<std::size_t>(s.part));
  for (Index at = 0; at < s.tokens; at += s.part) {
    for (Index i = 0; i < s.part; ++i)
      tokens[static_cast<std::size_t>(i)] =
          static_cast<Token>(((at + i) * 7919 + (at + i) / 97) % model->card().vocab);
    parts.push_back(seconds([&] { stream.feed(tokens); }) / static_cast<double>(s.part));
    splitter.feed(other, tokens);
    compare(stream, other);
    std::printf("%9td tokens  %7.3f us/token  %zu bytes of state, %zu kept every %td tokens\n",
                stream.position(), 1e6 * parts.back(), stream.state_bytes(), stream.boundaries().bytes(),
                stream.boundaries().stride());
    std::fflush(stdout);
  }
  std::printf(
      "after each part the same bits in other splits\nlast part / second part  %.3f  (target: at most "
      "1.05)\n",
      parts.back() / parts[1]);
}

}  // namespace
}  // namespace plait

int main(int argc, char** argv) {
  plait::Settings s;
  CLI::App app("The time per token of a long stream, early and late.", "bench_stream");
  app.add_option("MODEL", s.model, "A model file (default: the bundled model)");
  app.add_option("--tokens", s.tokens, "Tokens")->check(CLI::Range(2, 1 << 30))->capture_default_str();
  app.add_option("--part", s.part, "Tokens that are timed together")
      ->check(CLI::Range(1, 1 << 28))
      ->capture_default_str();
  app.add_option("--keep", s.keep, "Bytes of earlier states to keep")->capture_default_str();
  app.add_option("--window", s.window, "Keys that attention sees; 0 = as the model says")
      ->capture_default_str();
  app.add_option("--numerics", s.numerics, "fast or exact")
      ->check(CLI::IsMember({"fast", "exact"}))
      ->capture_default_str();
  s.flags.add_to(app);
  return plait::run_bench(app, argc, argv, [&] {
    if (s.flags.smoke) s.tokens = 4000, s.part = 1000;
    if (s.tokens < 2 * s.part) plait::fail("two parts of ", s.part, " tokens take more than ", s.tokens);
    plait::report(s);
  });
}
