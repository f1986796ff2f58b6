// The kernels alone: matrix products against oneDNN, a single row against the memory's read bandwidth,
// elementwise functions per element. A product whose single row differs from its row of the batch prints no
// figure.
// bench_kernels --help lists the flags.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "bench/program.h"
#include "bench/yardsticks.h"
#include "runtime/base/arena.h"
#include "runtime/base/error.h"
#include "runtime/base/panel.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/linear.h"

namespace plait {
namespace {

struct Settings {
  BenchFlags flags;
  std::string isa = "automatic";
  Compute compute{Numerics::exact, Isa::automatic, 1};
};

std::vector<float> values(Index count) {
  std::vector<float> all(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<float>(i * 2654435761u % 2001) / 1000 - 1;
  return all;
}

// One weight, as many copies of it as push each other out of the caches when one row meets them in turn.
class Product {
 public:
  Product(Index out, Index in, DType dtype, Index copies)
      : x_(values(512 * in)), y_(static_cast<std::size_t>(512 * out)) {
    const Tensor weight = make_tensor({out, in}, values(out * in));
    for (Index i = 0; i < copies; ++i) weights_.emplace_back(pack(weight, dtype));
  }

  // Seconds per product, all copies once.
  double run(Index rows, const Compute& compute) {
    return seconds([&] {
             for (const Linear& w : weights_) run(w, 0, rows, compute);
           }) /
           static_cast<double>(weights_.size());
  }
  bool row_alone_is_the_same(Index rows, const Compute& compute) {
    const Index out = weights_[0].out();
    run(weights_[0], 0, rows, compute);
    const std::vector<float> batch = y_;
    run(weights_[0], rows - 1, 1, compute);
    return std::equal(y_.begin(), y_.begin() + out, batch.begin() + (rows - 1) * out);
  }

 private:
  void run(const Linear& w, Index first, Index rows, const Compute& compute) {
    w.run({x_.data() + first * w.in(), rows, w.in()}, {y_.data(), rows, w.out()}, compute);
  }
  std::vector<float> x_, y_;
  std::vector<Linear> weights_;
};

struct Mode {
  const char* name;
  DType dtype;
  Numerics numerics;
  bool yardstick;  // oneDNN has the same product
};
constexpr Mode kModes[] = {{"f32", DType::f32, Numerics::exact, true},
                           {"bf16 fast", DType::bf16, Numerics::fast, true},
                           {"bf16 exact", DType::bf16, Numerics::exact, false}};

void compare(Index out, Index in, const Mode& mode, const Settings& s) {
  Compute compute = s.compute;
  compute.numerics = mode.numerics;
  Product product(out, in, mode.dtype, 1);
  for (const Index rows : {16, 64, 512}) {
    if (!product.row_alone_is_the_same(rows, compute))
      fail("a row alone differs from its row of ", rows, " rows");
    double ours = std::numeric_limits<double>::infinity(), theirs = ours;
    for (int round = 0; round < s.flags.repeat; ++round) {
      for (int i = 0; i < (s.flags.smoke ? 1 : 5); ++i) ours = std::min(ours, product.run(rows, compute));
      if (mode.yardstick)
        theirs = std::min(theirs, yardsticks::onednn_seconds({{{out, in}, 1}}, rows,
                                                             mode.dtype == DType::bf16, compute.threads));
    }
    const double work = 2e-9 * static_cast<double>(rows * out * in);
    std::printf("%-10s  %5td x %-5td %4td rows  %7.0f GFLOP/s", mode.name, out, in, rows, work / ours);
    if (mode.yardstick) std::printf("  oneDNN %7.0f  ratio %.2f", work / theirs, theirs / ours);
    std::printf("\n");
  }
}

// One row of the batch reads every weight once: bytes per second as a share of what reading alone reaches.
void compare_single_row(Index out, Index in, const Mode& mode, double bandwidth, const Settings& s) {
  Compute compute = s.compute;
  compute.numerics = mode.numerics;
  const double bytes = static_cast<double>(out * in) * static_cast<double>(bytes_of(mode.dtype));
  Product product(out, in, mode.dtype, s.flags.smoke ? 1 : static_cast<Index>(256e6 / bytes) + 1);
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < (s.flags.smoke ? 1 : 7); ++i) best = std::min(best, product.run(1, compute));
  std::printf("%-10s  %5td x %-5td    1 row   %7.1f GB/s     reading %6.1f  ratio %.2f\n", mode.name, out, in,
              bytes / best * 1e-9, bandwidth * 1e-9, bytes / best / bandwidth);
}

void time_functions(const Settings& s) {
  const Kernels& k = kernels(s.compute);
  const Index n = 4096;
  const std::vector<float> x = values(n);
  std::vector<float> y(x.size());
  const auto time = [&](const char* name, auto&& f) {
    double best = std::numeric_limits<double>::infinity();
    for (int i = 0; i < (s.flags.smoke ? 1 : 200); ++i) best = std::min(best, seconds(f));
    std::printf("%-14s %6.3f ns per element\n", name, best / static_cast<double>(n) * 1e9);
  };
  const std::pair<const char*, Kernels::Map> maps[] = {
      {"exp", k.exp},           {"log", k.log},      {"sigmoid", k.sigmoid}, {"silu", k.silu},
      {"softplus", k.softplus}, {"tanh", k.tanh},    {"gelu", k.gelu},       {"gelu_tanh", k.gelu_tanh},
      {"sqrt", k.sqrt},         {"square", k.square}};
  for (const auto& [name, f] : maps) time(name, [&, f = f] { f(x.data(), y.data(), n); });
  volatile float sink = 0;
  time("sum", [&] { sink = k.sum(x.data(), n); });
  time("dot", [&] { sink = k.dot(x.data(), x.data(), n); });
  time("maximum", [&] { sink = k.maximum(x.data(), n); });
  std::vector<bf16> half(x.size());
  time("to_bf16", [&] { k.to_bf16(x.data(), half.data(), n); });
  const std::vector<double> wide(x.begin(), x.end());
  std::vector<float> cosine(x.size());
  time("exp_difference", [&] { k.exp_difference(wide.data(), 0.5, y.data(), n); });
  time("sin_cos", [&] { k.sin_cos(wide.data(), y.data(), cosine.data(), n); });
  // A chunk's triangle: 32 rows, 32 columns, row r takes r + 1 terms of 32; per multiply-add.
  time("triangle",
       [&] { k.panel_triangular(32, 1, 32, x.data(), 32, x.data() + 1024, 32, y.data(), 32, Start::zero); });
}

void report(const Settings& s) {
  std::printf("%s, %d threads\n", kernels(s.compute).name, s.compute.threads);
  struct Size {
    Index out, in;
  };
  const std::vector<Size> sizes =
      s.flags.smoke ? std::vector<Size>{{96, 64}}
                    : std::vector<Size>{{3584, 1024}, {1024, 3584}, {8192, 1024}, {2048, 1024}};
  for (const Mode& mode : kModes)
    for (const auto [out, in] : sizes) compare(out, in, mode, s);
  const double bandwidth = yardsticks::read_bandwidth(s.compute.threads, s.flags.smoke);
  for (const Mode& mode : kModes)
    for (const auto [out, in] : sizes) compare_single_row(out, in, mode, bandwidth, s);
  time_functions(s);
}

}  // namespace
}  // namespace plait

int main(int argc, char** argv) {
  plait::Settings s;
  CLI::App app("The kernels alone, against oneDNN and the memory.", "bench_kernels");
  app.add_option("--isa", s.isa, "automatic, avx512, avx2 or portable")->capture_default_str();
  s.flags.add_to(app);
  return plait::run_bench(app, argc, argv, [&] {
    if (s.flags.smoke) s.flags.repeat = 1;
    s.compute = {plait::Numerics::exact, plait::parse_isa(s.isa), s.flags.threads};
    plait::report(s);
  });
}
