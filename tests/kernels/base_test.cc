// Halves, panels, arenas, threads, digests.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "runtime/base/arena.h"
#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "runtime/base/panel.h"
#include "runtime/base/parallel.h"
#include "tests/testing.h"

namespace plait {
namespace {

TEST(Half, EveryValueSurvivesTheRoundTrip) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const f16 h{static_cast<std::uint16_t>(bits)};
    const bf16 b{static_cast<std::uint16_t>(bits)};
    EXPECT_TRUE(std::isnan(to_float(h)) || to_f16(to_float(h)).bits == bits) << bits;
    EXPECT_TRUE(std::isnan(to_float(b)) || to_bf16(to_float(b)).bits == bits) << bits;
    EXPECT_EQ(std::isnan(to_float(h)), std::isnan(to_float(to_f16(to_float(h)))));
    EXPECT_EQ(std::isnan(to_float(b)), std::isnan(to_float(to_bf16(to_float(b)))));
  }
}

TEST(Half, RoundsToNearestEven) {
  EXPECT_EQ(to_float(to_f16(1 + 0x1p-11f)), 1);
  EXPECT_EQ(to_float(to_f16(1 + 0x3p-11f)), 1 + 0x1p-9f);
  EXPECT_EQ(to_float(to_f16(65519.0f)), 65504);
  EXPECT_TRUE(std::isinf(to_float(to_f16(65520.0f))));
  EXPECT_EQ(to_float(to_f16(0x1p-25f)), 0);
  EXPECT_EQ(to_float(to_f16(0x1.8p-25f)), 0x1p-24f);
  EXPECT_EQ(to_float(to_bf16(1 + 0x1p-8f)), 1);
  EXPECT_EQ(to_float(to_bf16(1 + 0x3p-8f)), 1 + 0x1p-6f);
}

TEST(Panel, PackAndUnpackAreInverse) {
  for (auto [out, in] : std::vector<std::pair<Index, Index>>{{1, 1}, {32, 2}, {33, 5}, {64, 64}, {100, 7}}) {
    std::vector<float> rows(static_cast<std::size_t>(out * in)), back(rows.size());
    std::iota(rows.begin(), rows.end(), 1.0f);
    for (float& value : rows) value = to_float(to_bf16(value));
    for (DType dtype : {DType::f32, DType::bf16}) {
      const Tensor packed = pack(make_tensor({out, in}, rows), dtype);
      EXPECT_EQ(packed.bytes, static_cast<std::size_t>(packed_elements(dtype, out, in)) * bytes_of(dtype));
      EXPECT_EQ(element_count(packed_shape(dtype, out, in)), packed_elements(dtype, out, in));
      EXPECT_EQ(to_float(packed), rows) << name_of(dtype) << out << " x " << in;
    }
  }
}

TEST(Panel, TheLayoutIsTheDocumentedOne) {
  const std::vector<float> rows = testing::Numbers(1).normals(40 * 6);
  const Tensor f = pack(make_tensor({40, 6}, rows), DType::f32),
               b = pack(make_tensor({40, 6}, rows), DType::bf16);
  const auto* pf = static_cast<const float*>(f.data);
  const auto* pb = static_cast<const bf16*>(b.data);
  for (std::size_t o = 0; o < 40; ++o)
    for (std::size_t i = 0; i < 6; ++i) {
      EXPECT_EQ(pf[(o / 32 * 6 + i) * 32 + o % 32], rows[o * 6 + i]);
      EXPECT_EQ(pb[((o / 32 * 3 + i / 2) * 32 + o % 32) * 2 + i % 2].bits, to_bf16(rows[o * 6 + i]).bits);
    }
  EXPECT_EQ(pf[(6 + 0) * 32 + 31], 0) << "padding is zero";
}

TEST(Arena, ScopesGiveBackAndNeverMoveWhatIsTaken) {
  Arena arena;
  Arena::Scope outer(arena);
  float* first = outer.take(100);
  first[99] = 7;
  float* place = nullptr;
  {
    Arena::Scope inner(arena);
    place = inner.take(10);
    inner.take(10'000'000)[9'999'999] = 1;
  }
  EXPECT_EQ(first[99], 7);
  EXPECT_EQ(outer.take(10), place);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(place) % kAlignment, 0u);
}

TEST(Parallel, EveryIndexOnce) {
  for (int threads : {1, 2, 5})
    for (Index count : {0, 1, 2, 1000}) {
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
      parallel_for(threads, count, [&](Index i) { ++seen[static_cast<std::size_t>(i)]; });
      for (const auto& n : seen) EXPECT_EQ(n, 1);
    }
}

TEST(Parallel, TheFirstExceptionReachesTheCaller) {
  for (int threads : {1, 3})
    EXPECT_THROW(parallel_for(threads, 100,
                              [](Index i) {
                                if (i == 41) throw std::runtime_error("41");
                              }),
                 std::runtime_error);
  std::atomic<int> after{0};
  parallel_for(2, 10, [&](Index) { ++after; });
  EXPECT_EQ(after, 10) << "usable afterwards";
}

TEST(Parallel, NestedCallsRunSerially) {
  std::atomic<int> inner{0};
  parallel_for(2, 4, [&](Index) { parallel_for(2, 5, [&](Index) { ++inner; }); });
  EXPECT_EQ(inner, 20);
}

TEST(Parallel, ThreadsCountDenormals) {
  std::atomic<int> flushed{0};
  parallel_for(2, 64, [&](Index) {
    volatile float tiny = std::numeric_limits<float>::min();
    if (tiny / 2 == 0) ++flushed;
  });
  EXPECT_EQ(flushed, 0);
  EXPECT_GE(available_threads(), 1);
}

TEST(Digest, MatchesThePublishedVectors) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Digest pieces;
  pieces.add("a");
  pieces.add("bc");
  EXPECT_EQ(pieces.hex(), sha256("abc"));
}

TEST(Tensors, NamesAreParsedOrRefused) {
  for (DType d : {DType::f32, DType::f64, DType::bf16, DType::f16, DType::q8, DType::q4})
    EXPECT_EQ(parse_dtype(name_of(d)), d);
  EXPECT_THROW(parse_dtype("f8"), Error);
  EXPECT_THROW(parse_numerics("sloppy"), Error);
  EXPECT_EQ(to_string(Shape{3, 4}), "[3, 4]");
}

}  // namespace
}  // namespace plait
