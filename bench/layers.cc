// One layer at a time: microseconds per token in prefill and decode, the share of that time its own matrix
// products need when run alone, and state bytes. A kind whose bits depend on the split prints no figure.
//   bench_layers [KIND ..] [--tokens 512] [--threads N] [--repeat 5] [--smoke]
// Sizes: bench/layers.json.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <set>
#include <string>

#include "bench/yardsticks.h"
#include "runtime/base/error.h"
#include "runtime/base/panel.h"
#include "runtime/base/parallel.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/linear.h"
#include "runtime/run/registry.h"
#include "tests/testing.h"

namespace plait {
namespace {

struct Settings {
  std::set<std::string> kinds;
  Index tokens = 512, repeat = 5;
  int threads = available_threads();
  bool smoke = false;
};

Settings parse(int argc, char** argv) {
  Settings s;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const auto value = [&] { return i + 1 < argc ? std::string(argv[++i]) : std::string(); };
    if (arg == "--smoke")
      s.smoke = true, s.tokens = 70, s.repeat = 1;
    else if (arg == "--tokens")
      s.tokens = std::stol(value());
    else if (arg == "--repeat")
      s.repeat = std::stol(value());
    else if (arg == "--threads")
      s.threads = std::stoi(value());
    else if (arg.starts_with("--"))
      fail("bench_layers: unknown flag ", arg);
    else
      s.kinds.insert(arg);
  }
  return s;
}

// One layer with random f32 weights and its own input rows.
class Subject {
 public:
  Subject(const Kind& kind, Json settings, Index width, Index tokens, int threads)
      : rows_(tokens), width_(width), context_{{Numerics::exact, Isa::automatic, threads}} {
    const auto config = [&] {
      return std::make_unique<Config>(kind.key, settings, Surroundings{width, 1, 256, width, Grids{}});
    };
    testing::Numbers numbers(1);
    std::map<std::string, Tensor> tensors;
    for (const TensorSpec& spec : kind.tensors(*config())) {
      const double scale = 1 / std::sqrt(static_cast<double>(spec.shape.back()));
      const Tensor rows = make_tensor(spec.shape, numbers.normals(element_count(spec.shape), scale));
      tensors[spec.name] = spec.matrix ? pack(rows, DType::f32) : rows;
    }
    parameters_ = Parameters(tensors);
    layer_ = kind.make(*config(), parameters_);
    input_ = numbers.normals(tokens * width);
    output_.resize(static_cast<std::size_t>(tokens * layer_->signature().output));
  }

  // Runs all rows in pieces of `step`; returns seconds.
  double run(Index step) {
    State state(layer_->fields());
    const auto start = std::chrono::steady_clock::now();
    for (Index p = 0; p < rows_; p += step) {
      const Index count = std::min(step, rows_ - p);
      const View<const float> x = View<const float>(input_.data(), rows_, width_).slice_rows(p, count);
      const Index out = layer_->signature().output;
      const View<float> y = View<float>(output_.data(), rows_, out).slice_rows(p, count);
      const Segment segment{layer_->fields().empty() ? nullptr : &state, p, 0, count, nullptr};
      const Ports ports{{&x, 1}, y, {}};
      layer_->run(ports, {&segment, 1}, context_);
      state.advance(p + count);
    }
    state_bytes_ = state.bytes();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  bool bits_depend_on_the_split() {
    run(rows_);
    const std::vector<float> whole = output_;
    for (Index step : {1, 7}) {
      run(step);
      if (!testing::same_bits(output_, whole)) return true;
    }
    return false;
  }

  // Seconds its products take alone, at `rows` rows per call.
  double products(Index rows) {
    double total = 0;
    std::vector<float> x, y;
    for (const auto& [name, tensor] : parameters_.all()) {
      if (tensor.layout != Layout::panels) continue;
      const Linear linear(tensor);
      x.assign(static_cast<std::size_t>(rows * linear.in()), 0.5f);
      y.resize(static_cast<std::size_t>(rows * linear.out()));
      const auto start = std::chrono::steady_clock::now();
      linear.run(View<const float>(x.data(), rows, linear.in()), View<float>(y.data(), rows, linear.out()),
                 context_.compute);
      total += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    return total;
  }
  std::size_t state_bytes() const { return state_bytes_; }

 private:
  Index rows_, width_;
  Context context_;
  Parameters parameters_;
  std::unique_ptr<Layer> layer_;
  std::vector<float> input_, output_;
  std::size_t state_bytes_ = 0;
};

void report(const Settings& s, const std::string& key, const Json& sizes) {
  const Kind& kind = Registry::builtin().find(key);
  const Json settings = sizes["settings"];
  const Index width = sizes["width"].get<Index>();
  if (Subject(kind, settings, width, 70, s.threads).bits_depend_on_the_split())
    fail(key, ": bits depend on the split; no figure is printed for it");
  Subject prefill_subject(kind, settings, width, s.tokens, s.threads);
  Subject decode_subject(kind, settings, width, std::min<Index>(s.tokens, 64), s.threads);
  double prefill = 1e30, decode = 1e30, products = 1e30;
  for (Index r = 0; r < s.repeat; ++r) {
    prefill = std::min(prefill, prefill_subject.run(s.tokens));
    decode = std::min(decode, decode_subject.run(1));
    products = std::min(products, prefill_subject.products(s.tokens));
  }
  const double tokens = static_cast<double>(s.tokens);
  std::printf("%-24s %10.2f %10.2f %9.1f %% %12zu\n", key.c_str(), prefill / tokens * 1e6,
              decode / static_cast<double>(std::min<Index>(s.tokens, 64)) * 1e6, 100 * products / prefill,
              prefill_subject.state_bytes());
}

}  // namespace
}  // namespace plait

int main(int argc, char** argv) try {
  const plait::Settings settings = plait::parse(argc, argv);
  std::ifstream file(std::string(PLAIT_SOURCE_DIR) + "/bench/layers.json");
  const plait::Json sizes = plait::Json::parse(file);
  std::printf("isa %s, %d threads, f32, best of %ld\n", plait::kernels().name, settings.threads,
              static_cast<long>(settings.repeat));
  std::printf("%-24s %10s %10s %11s %12s\n", "kind", "prefill us", "decode us", "products", "state bytes");
  for (const auto& [key, value] : sizes.items())
    if (settings.kinds.empty() || settings.kinds.contains(key)) plait::report(settings, key, value);
} catch (const std::exception& error) {
  std::fprintf(stderr, "bench_layers: %s\n", error.what());
  return 1;
}
