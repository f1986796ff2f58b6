// Whole-model speed as ratios to yardsticks measured in the same run: prefill against oneDNN's matrix
// products of the same shapes, decode against the machine's read bandwidth, recurrence cores against the
// prefill.
//   bench_model [MODEL.h5] [--tokens 512] [--decode 32] [--threads N] [--repeat 5] [--numerics fast]
//   [--smoke]
// Without MODEL it makes one of Qwen3.5-0.8B shapes with random bf16 weights (bench/qwen3_5_0_8b.json) and
// removes it.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "bench/yardsticks.h"
#include "runtime/base/error.h"
#include "runtime/base/parallel.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/linear.h"
#include "runtime/run/stream.h"
#include "weights/initialise.h"
#include "weights/model_file.h"

namespace plait {
namespace {

struct Settings {
  std::string model;
  Index tokens = 512, decode = 32, repeat = 5;
  int threads = available_threads();
  Numerics numerics = Numerics::fast;
  bool smoke = false;
};

Settings parse(int argc, char** argv) {
  Settings s;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const auto value = [&] { return i + 1 < argc ? std::string(argv[++i]) : std::string(); };
    if (arg == "--smoke")
      s.smoke = true, s.tokens = 64, s.decode = 4, s.repeat = 1;
    else if (arg == "--tokens")
      s.tokens = std::stol(value());
    else if (arg == "--decode")
      s.decode = std::stol(value());
    else if (arg == "--repeat")
      s.repeat = std::stol(value());
    else if (arg == "--threads")
      s.threads = std::stoi(value());
    else if (arg == "--numerics")
      s.numerics = parse_numerics(value());
    else if (arg.starts_with("--"))
      fail("bench_model: unknown flag ", arg);
    else
      s.model = arg;
  }
  return s;
}

// A model file that lives as long as this object.
class TemporaryModel {
 public:
  explicit TemporaryModel(bool smoke) {
    path_ = std::filesystem::temp_directory_path() / cat("plait-bench-", ::getpid(), ".h5");
    std::ifstream file(std::string(PLAIT_SOURCE_DIR) + "/bench/qwen3_5_0_8b.json");
    Json card = Json::parse(file);
    if (smoke) {
      card["vocab"] = 2048;
      card["pattern"] = {"linear", "full"};
    }
    write_random_model(card, path_.string(), 1, DType::bf16, {});
  }
  ~TemporaryModel() { std::filesystem::remove(path_); }
  TemporaryModel(const TemporaryModel&) = delete;
  TemporaryModel& operator=(const TemporaryModel&) = delete;
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <class F>
double seconds(F&& f) {
  const double start = now();
  f();
  return now() - start;
}

// Matrices of the model by shape: how many products of each size one pass makes. The head counts apart: a
// prompt needs its logits for the last token only.
std::map<std::pair<Index, Index>, int> products(const Model& model) {
  std::map<std::pair<Index, Index>, int> shapes;
  for (int n = 0; n < model.graph().output(); ++n)
    for (const auto& [name, tensor] : model.parameters(n).all())
      if (model.kind(n).key != "embedding" && tensor.shape.size() == 2 && tensor.layout == Layout::panels)
        ++shapes[{tensor.shape[0], tensor.shape[1]}];
  return shapes;
}

// Bytes one decoded token must read: every matrix once (of an embedding one row), and the states.
double bytes_per_token(const Model& model, const Stream& stream) {
  double bytes = static_cast<double>(stream.state_bytes());
  for (int n = 0; n < model.node_count(); ++n)
    if (model.kind(n).key != "embedding")
      for (const auto& [name, tensor] : model.parameters(n).all()) bytes += static_cast<double>(tensor.bytes);
  return bytes;
}

// Seconds per node kind over one prefill, by the clock between observer calls.
std::map<std::string, double> by_kind(const Model& model, const Compute& compute,
                                      std::span<const Token> tokens) {
  std::map<std::string, double> shares;
  Sequence sequence(model);
  double last = now();
  RunOptions options{compute, 512, [&](int node, const Ports&, std::span<const Segment>) {
                       const double t = now();
                       shares[model.kind(node).key] += t - last;
                       last = t;
                     }};
  const Item item{&sequence, tokens, Want::last, Origin::given};
  last = now();
  run_batch(model, {&item, 1}, options, {});
  return shares;
}

// Seconds the matrix products of all recurrent layers take alone: what is left of the layers' time are their
// cores, convolutions, gates and norms.
double recurrent_products(const Model& model, const Compute& compute, Index rows) {
  double total = 0;
  for (int n = 0; n < model.node_count(); ++n) {
    if (model.kind(n).group != "recurrent") continue;
    for (const auto& [name, tensor] : model.parameters(n).all()) {
      if (tensor.layout != Layout::panels) continue;
      const Linear linear(tensor);
      const std::vector<float> x(static_cast<std::size_t>(rows * linear.in()), 0.5f);
      std::vector<float> y(static_cast<std::size_t>(rows * linear.out()));
      total += seconds([&] {
        linear.run({x.data(), rows, linear.in()}, {y.data(), rows, linear.out()}, compute);
      });
    }
  }
  return total;
}

void report(const Settings& s, const std::string& path) {
  std::shared_ptr<const Model> model;
  std::vector<Token> tokens(static_cast<std::size_t>(s.tokens));
  StreamOptions options;
  options.compute = {s.numerics, Isa::automatic, s.threads};
  // Open to first token on a warm page cache: the second opening.
  double open = 0;
  for (int i = 0; i < 2; ++i)
    open = seconds([&] {
      model = load(path);
      Stream(model, options).feed({1});
    });
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<Token>((i * 7919 + 13) % static_cast<std::size_t>(model->card().vocab));

  double prefill = 1e30, decode = 1e30, matrices = 1e30, read = 0;
  double bytes = 0;
  for (Index r = 0; r < s.repeat; ++r) {
    Stream stream(model, options);
    prefill = std::min(prefill, seconds([&] { stream.feed(tokens); }));
    decode = std::min(decode, seconds([&] {
                        for (Index i = 0; i < s.decode; ++i)
                          stream.feed({static_cast<Token>(i)}, Origin::sampled);
                      }));
    bytes = bytes_per_token(*model, stream);
    matrices = std::min(matrices, yardsticks::onednn_seconds(products(*model), s.tokens,
                                                             s.numerics == Numerics::fast, s.threads));
    read = std::max(read, yardsticks::read_bandwidth(s.threads, s.smoke));
  }
  const double per_token = decode / static_cast<double>(s.decode);
  std::printf("model %s, %s, isa %s, %d threads, best of %ld\n", model->card().name.c_str(),
              name_of(s.numerics), kernels().name, s.threads, static_cast<long>(s.repeat));
  std::printf("open to first token            %8.3f s\n", open);
  std::printf("prefill %5ld tokens           %8.1f tokens/s\n", static_cast<long>(s.tokens),
              static_cast<double>(s.tokens) / prefill);
  if (matrices < 1e29)
    std::printf("  oneDNN, same products        %8.1f tokens/s; prefill at %.1f %% of it\n",
                static_cast<double>(s.tokens) / matrices, 100 * matrices / prefill);
  std::printf("decode                         %8.1f tokens/s\n", 1 / per_token);
  std::printf("  weights and states read      %8.2f GB/s; %.1f %% of the measured %.2f GB/s\n",
              bytes / per_token / 1e9, 100 * bytes / per_token / read, read / 1e9);
  const auto shares = by_kind(*model, options.compute, tokens);
  double total = 0;
  for (const auto& [kind, time] : shares) total += time;
  for (const auto& [kind, time] : shares)
    std::printf("  %-24s %6.1f %% of prefill\n", kind.c_str(), 100 * time / total);
  double recurrent = 0;
  for (const auto& [kind, time] : shares)
    if (Registry::builtin().find(kind).group == "recurrent") recurrent += time;
  const double rest = recurrent - recurrent_products(*model, options.compute, s.tokens);
  std::printf("  %-24s %6.1f %% of prefill (recurrent layers less their products)\n", "recurrence cores",
              100 * rest / total);
}

}  // namespace
}  // namespace plait

int main(int argc, char** argv) try {
  const plait::Settings settings = plait::parse(argc, argv);
  if (!settings.model.empty()) {
    plait::report(settings, settings.model);
  } else {
    const plait::TemporaryModel model(settings.smoke);
    plait::report(settings, model.path());
  }
} catch (const std::exception& error) {
  std::fprintf(stderr, "bench_model: %s\n", error.what());
  return 1;
}
