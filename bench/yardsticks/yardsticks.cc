#include "bench/yardsticks.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <vector>

#include "runtime/base/arena.h"
#include "runtime/base/parallel.h"

#ifdef PLAIT_HAS_DNNL
#include <dnnl.hpp>
#endif

namespace plait::yardsticks {
namespace {

template <class F>
double best_seconds(int repeat, F&& f) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < repeat; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace

double read_bandwidth(int threads, bool smoke) {
  const std::size_t words = (smoke ? std::size_t{8} : std::size_t{512}) << 17;  // of 8 bytes: 8 or 512 MiB
  Buffer buffer(words * 8);
  buffer.zero();
  const auto* data = buffer.as<std::uint64_t>();
  std::vector<std::uint64_t> sums(static_cast<std::size_t>(threads) * 8);
  const std::size_t share = words / static_cast<std::size_t>(threads);
  const double best = best_seconds(3, [&] {
    parallel_for(threads, threads, [&](Index t) {
      std::uint64_t lanes[16] = {};
      const auto* from = data + static_cast<std::size_t>(t) * share;
      for (std::size_t i = 0; i + 16 <= share; i += 16)
        for (std::size_t l = 0; l < 16; ++l) lanes[l] += from[i + l];
      for (std::uint64_t lane : lanes) sums[static_cast<std::size_t>(t) * 8] += lane;
    });
  });
  volatile std::uint64_t sink = sums[0];
  (void)sink;
  return static_cast<double>(words * 8) / best;
}

#ifdef PLAIT_HAS_DNNL

namespace {

double one_shape(Index out, Index in, Index rows, dnnl::memory::data_type type) {
  using dnnl::memory;
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  static dnnl::stream stream(engine);
  const memory::desc x({rows, in}, type, memory::format_tag::ab),
      y({rows, out}, memory::data_type::f32, memory::format_tag::ab);
  const memory::desc w({in, out}, type, memory::format_tag::any);
  const dnnl::matmul::primitive_desc primitive(dnnl::matmul::desc(x, w, y), engine);
  memory xm(x, engine), ym(y, engine), wm(primitive.weights_desc(), engine);
  for (memory* m : {&xm, &ym, &wm}) {
    auto* bytes = static_cast<unsigned char*>(m->get_data_handle());
    std::fill(bytes, bytes + m->get_desc().get_size(), static_cast<unsigned char>(0));
  }
  const dnnl::matmul product(primitive);
  const auto run = [&] {
    product.execute(stream, {{DNNL_ARG_SRC, xm}, {DNNL_ARG_WEIGHTS, wm}, {DNNL_ARG_DST, ym}});
    stream.wait();
  };
  run();
  return best_seconds(5, run);
}

}  // namespace

double onednn_seconds(const std::map<std::pair<Index, Index>, int>& shapes, Index rows, bool bf16, int) {
  double total = 0;
  for (const auto& [shape, count] : shapes)
    total += count * one_shape(shape.first, shape.second, rows,
                               bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32);
  return total;
}

#else

double onednn_seconds(const std::map<std::pair<Index, Index>, int>&, Index, bool, int) {
  return std::numeric_limits<double>::infinity();
}

#endif

}  // namespace plait::yardsticks
