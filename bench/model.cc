// Whole-model speed as ratios to yardsticks measured in the same run: prefill against oneDNN's matrix
// products of the same shapes, decode against the machine's read bandwidth, recurrence cores against the
// prefill.
// Without a model it makes one of Qwen3.5-0.8B shapes with random bf16 weights (bench/qwen3_5_0_8b.json) and
// removes it. bench_model --help lists the flags.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <string>

#include "bench/program.h"
#include "bench/temporary_model.h"
#include "bench/yardsticks.h"
#include "layers/recurrent/delta.h"
#include "layers/reference/gated_delta_net.h"
#include "runtime/base/error.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/linear.h"
#include "runtime/run/stream.h"
#include "weights/model_file.h"

namespace plait {
namespace {

struct Settings {
  BenchFlags flags;
  std::string model, numerics = "fast";
  Index tokens = 512, decode = 32;
};

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
  using Clock = std::chrono::steady_clock;
  std::map<std::string, double> shares;
  Sequence sequence(model);
  Clock::time_point last = Clock::now();
  const RunOptions options{compute, 512, [&](int node, const Ports&, std::span<const Segment>) {
                             const Clock::time_point t = Clock::now();
                             shares[model.kind(node).key] += std::chrono::duration<double>(t - last).count();
                             last = t;
                           }};
  const Item item{&sequence, tokens, Want::last, Origin::given};
  last = Clock::now();
  run_batch(model, {&item, 1}, options, {});
  return shares;
}

// Seconds the matrix products of all recurrent layers take alone.
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

// The recurrence of a gated_delta_net node alone, on rows that are already projected.
class DeltaCore {
 public:
  DeltaCore(const Model& model, int node, Index rows) : rows_(rows), settings_(read(model, node)) {
    const GatedDeltaNetSettings& s = settings_;
    core_ = Delta(
        {s.num_heads, s.num_value_heads, s.head_dim, s.value_head_dim, s.chunk, Delta::Decay::scalar}, 0);
    for (Index width :
         {s.num_heads * s.head_dim, s.num_heads * s.head_dim, s.num_value_heads * s.value_head_dim})
      wide_.push_back(values(rows * width, -0.1f, 0.1f));
    narrow_ = {values(rows * s.num_value_heads, -0.1f, 0.0f), values(rows * s.num_value_heads, 0.0f, 1.0f)};
    output_.resize(static_cast<std::size_t>(rows * s.num_value_heads * s.value_head_dim));
  }

  double run(const Compute& compute) {
    const std::vector<Field> fields = core_.fields();
    State state(fields);
    const Segment segment{&state, 0, 0, rows_, nullptr};
    const auto view = [&](const std::vector<float>& all) {
      return View<const float>(all.data(), rows_, static_cast<Index>(all.size()) / rows_);
    };
    const View<float> o(output_.data(), rows_, static_cast<Index>(output_.size()) / rows_);
    const Delta::Rows rows{view(wide_[0]),
                           view(wide_[1]),
                           view(wide_[2]),
                           view(narrow_[0]),
                           view(narrow_[1]),
                           view(narrow_[1]),
                           o};
    return seconds([&] { core_.run(rows, {&segment, 1}, compute); });
  }

 private:
  static GatedDeltaNetSettings read(const Model& model, int node) {
    const Node& n = model.graph().nodes[static_cast<std::size_t>(node)];
    Surroundings surroundings;
    surroundings.width = model.width(n.inputs[0]);
    surroundings.model_width = model.card().width;
    surroundings.vocab = model.card().vocab;
    surroundings.grids = model.card().grids;
    Config config(n.name, n.settings, surroundings);
    return read_gated_delta_net(config);
  }
  static std::vector<float> values(Index count, float low, float high) {
    std::vector<float> all(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < all.size(); ++i)
      all[i] = low + (high - low) * static_cast<float>(i * 2654435761u % 2001) / 2000;
    return all;
  }

  Index rows_;
  GatedDeltaNetSettings settings_;
  Delta core_;
  std::vector<std::vector<float>> wide_, narrow_;
  std::vector<float> output_;
};

// Seconds of all gated delta rules of the model over `rows` tokens.
double delta_cores(const Model& model, const Compute& compute, Index rows) {
  double total = 0;
  for (int n = 0; n < model.node_count(); ++n)
    if (model.kind(n).key == "gated_delta_net") total += DeltaCore(model, n, rows).run(compute);
  return total;
}

struct Figures {
  double open = 0, read = 0, bytes = 0;
  double prefill = 1e30, decode = 1e30, matrices = 1e30, products = 1e30, cores = 1e30;
  std::map<std::string, double> kinds;  // of the fastest prefill
  double kinds_total = 1e30;
};

// The best of all repetitions; yardsticks and what they are compared with take turns.
Figures measure(const Settings& s, const Model& model, const StreamOptions& options,
                std::span<const Token> tokens) {
  Figures f;
  const Compute& compute = options.compute;
  for (Index r = 0; r < s.flags.repeat; ++r) {
    Stream stream(std::shared_ptr<const Model>(std::shared_ptr<void>(), &model), options);
    f.prefill = std::min(f.prefill, seconds([&] { stream.feed(tokens); }));
    f.decode = std::min(f.decode, seconds([&] {
                          for (Index i = 0; i < s.decode; ++i)
                            stream.feed({static_cast<Token>(i)}, Origin::sampled);
                        }));
    f.bytes = bytes_per_token(model, stream);
    f.matrices =
        std::min(f.matrices, yardsticks::onednn_seconds(products(model), s.tokens,
                                                        compute.numerics == Numerics::fast, compute.threads));
    f.read = std::max(f.read, yardsticks::read_bandwidth(compute.threads, s.flags.smoke));
    const auto kinds = by_kind(model, compute, tokens);
    double total = 0;
    for (const auto& [kind, time] : kinds) total += time;
    if (total < f.kinds_total) f.kinds = kinds, f.kinds_total = total;
    f.products = std::min(f.products, recurrent_products(model, compute, s.tokens));
    f.cores = std::min(f.cores, delta_cores(model, compute, s.tokens));
  }
  return f;
}

void print(const Settings& s, const Model& model, const Figures& f) {
  const double tokens = static_cast<double>(s.tokens), per_token = f.decode / static_cast<double>(s.decode);
  std::printf("model %s, %s, isa %s, %d threads, best of %ld\n", model.card().name.c_str(),
              s.numerics.c_str(), kernels().name, s.flags.threads, static_cast<long>(s.flags.repeat));
  std::printf("open to first token            %8.3f s\n", f.open);
  std::printf("prefill %5ld tokens           %8.1f tokens/s\n", static_cast<long>(s.tokens),
              tokens / f.prefill);
  if (f.matrices < 1e29)
    std::printf("  oneDNN, same products        %8.1f tokens/s; prefill at %.1f %% of it\n",
                tokens / f.matrices, 100 * f.matrices / f.prefill);
  std::printf("decode                         %8.1f tokens/s\n", 1 / per_token);
  std::printf("  weights and states read      %8.2f GB/s; %.1f %% of the measured %.2f GB/s\n",
              f.bytes / per_token / 1e9, 100 * f.bytes / per_token / f.read, f.read / 1e9);
  const auto share = [&](const char* name, double time) {
    std::printf("  %-40s %6.1f %% of prefill\n", name, 100 * time / f.kinds_total);
  };
  double recurrent = 0;
  for (const auto& [kind, time] : f.kinds) {
    share(kind.c_str(), time);
    if (Registry::builtin().find(kind).group == "recurrent") recurrent += time;
  }
  share("recurrent layers less their products", recurrent - f.products);
  share("gated delta rule alone", f.cores);
}

void report(const Settings& s, const std::string& path) {
  StreamOptions options;
  options.compute = {parse_numerics(s.numerics), Isa::automatic, s.flags.threads};
  std::shared_ptr<const Model> model;
  double open = 0;
  for (int i = 0; i < 2; ++i)  // the second opening meets a warm page cache
    open = seconds([&] {
      model = load(path);
      Stream(model, options).feed({1});
    });
  std::vector<Token> tokens(static_cast<std::size_t>(s.tokens));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<Token>((i * 7919 + 13) % static_cast<std::size_t>(model->card().vocab));
  Figures figures = measure(s, *model, options, tokens);
  figures.open = open;
  print(s, *model, figures);
}

}  // namespace
}  // namespace plait

int main(int argc, char** argv) {
  plait::Settings s;
  CLI::App app("Speed of a whole model as ratios to yardsticks of the same run.", "bench_model");
  app.add_option("MODEL", s.model, "A model file (default: Qwen3.5-0.8B shapes, random bf16 weights)");
  app.add_option("--tokens", s.tokens, "Tokens of the prompt")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--decode", s.decode, "Tokens decoded after it")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--numerics", s.numerics, "fast or exact")
      ->check(CLI::IsMember({"fast", "exact"}))
      ->capture_default_str();
  s.flags.add_to(app);
  return plait::run_bench(app, argc, argv, [&] {
    if (s.flags.smoke) s.tokens = 64, s.decode = 4, s.flags.repeat = 1;
    if (!s.model.empty()) return plait::report(s, s.model);
    const plait::TemporaryModel model(s.flags.smoke ? plait::ModelSize::smoke : plait::ModelSize::full);
    plait::report(s, model.path());
  });
}
