#include "layers/attention/power_features.h"

#include <algorithm>
#include <cassert>

namespace plait {
namespace {

constexpr Index kBlock = 256;  // features at least, so that products over a block are deep

// The degree-r monomials whose first channel is in [begin, end), from those of degree r - 1: body(channel,
// place of the first factor, how many follow it). Degree 0 is the single monomial 1.
template <class Body>
void for_each_channel(Index dim, Index degree, Index begin, Index end, Body&& body) {
  const Index all = PowerFeatures::monomials(dim, degree - 1);
  for (Index a = begin; a < end; ++a) {
    const Index count = PowerFeatures::monomials(dim - a, degree - 1);
    body(a, all - count, count);
  }
}

void raise_row(Index dim, Index degree, Index begin, Index end, const float* x, const float* lower, float* y,
               const Kernels& k) {
  if (degree == 1) {
    std::copy_n(x + begin, end - begin, y);
    return;
  }
  for_each_channel(dim, degree, begin, end, [&](Index a, Index first, Index count) {
    k.scale(lower + first, x[a], y, count);
    y += count;
  });
}

void raise_columns(Index dim, Index degree, Index begin, Index end, Index n, const float* x, Index ldx,
                   const float* lower, float* y, const Kernels& k) {
  for_each_channel(dim, degree, begin, end, [&](Index a, Index first, Index count) {
    for (Index i = first; i < first + count; ++i, y += n) {
      if (degree == 1)
        std::copy_n(x + a * ldx, n, y);
      else
        k.multiply(lower + i * n, x + a * ldx, y, n);
    }
  });
}

}  // namespace

Index PowerFeatures::monomials(Index dim, Index degree) {
  Index count = 1;
  for (Index i = 1; i <= degree; ++i) count = count * (dim + i - 1) / i;
  return count;
}

PowerFeatures::PowerFeatures(Index dim, Index degree) : dim_(dim), degree_(degree) {
  assert(dim >= 1 && degree >= 1);
  list_blocks();
  list_weights();
}

void PowerFeatures::list_blocks() {
  Index done = 0;
  Block block{0, 0, 0, 0};
  for_each_channel(dim_, degree_, 0, dim_, [&](Index a, Index, Index count) {
    block.count += count;
    block.channel_end = a + 1;
    if (block.count < kBlock && a + 1 < dim_) return;
    blocks_.push_back(block);
    longest_block_ = std::max(longest_block_, block.count);
    done += block.count;
    block = {done, 0, a + 1, a + 1};
  });
  assert(done == size());
}

std::vector<Index> PowerFeatures::channels(Index feature) const {
  std::vector<Index> found;
  Index from = 0;
  for (Index r = degree_; r >= 1; --r) {
    // `feature` counts monomials of degree r over channels from .. dim - 1.
    while (feature >= monomials(dim_ - from, r - 1)) feature -= monomials(dim_ - from++, r - 1);
    found.push_back(from);
  }
  return found;
}

void PowerFeatures::list_weights() {
  for (Index feature = 0; feature < size(); ++feature) {
    Index weight = 1, run = 0, last = -1, placed = 0;
    for (Index channel : channels(feature)) {
      run = channel == last ? run + 1 : 1;
      last = channel;
      weight = weight * ++placed / run;  // builds p! / prod a_i! factor by factor; each step is whole
    }
    weights_.push_back(static_cast<float>(weight));
  }
}

void PowerFeatures::lower(const float* x, float* lower, const Kernels& k) const {
  Arena::Scope scope(scratch());
  const float* below = x;
  for (Index r = 1; r < degree_; ++r) {
    float* y = r == degree_ - 1 ? lower : scope.take(monomials(dim_, r));
    raise_row(dim_, r, 0, dim_, x, below, y, k);
    below = y;
  }
}

void PowerFeatures::block(const Block& block, const float* x, const float* lower, float* y,
                          const Kernels& k) const {
  raise_row(dim_, degree_, block.channel, block.channel_end, x, lower, y, k);
}

void PowerFeatures::lower_columns(Index n, const float* x, Index ldx, float* lower, const Kernels& k) const {
  Arena::Scope scope(scratch());
  const float* below = nullptr;
  for (Index r = 1; r < degree_; ++r) {
    float* y = r == degree_ - 1 ? lower : scope.take(monomials(dim_, r) * n);
    raise_columns(dim_, r, 0, dim_, n, x, ldx, below, y, k);
    below = y;
  }
}

void PowerFeatures::block_columns(const Block& block, Index n, const float* x, Index ldx, const float* lower,
                                  float* y, const Kernels& k) const {
  raise_columns(dim_, degree_, block.channel, block.channel_end, n, x, ldx, lower, y, k);
}

}  // namespace plait
