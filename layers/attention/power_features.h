// Symmetric-power features: with w the multinomial coefficients,
//   sum_a w_a m_a(q) m_a(k) = (q.k)^p,   m_a(x) = prod_i x_i^a_i,   |a| = p,   C(dim + p - 1, p) of them.
// The usual form phi_a = sqrt(w_a) m_a puts a root on both sides; here the integer w stands on the query's
// side only, so nothing is rounded but the products.
//
// Monomials are ordered by their ascending channel tuples, first channel outermost. Then the degree-p
// monomials that begin with channel a are x_a times the degree-(p - 1) monomials that begin with a or later:
// a suffix of that list. They come in blocks, so that a product over all features needs no room for all of
// them.
#pragma once

#include <span>
#include <vector>

#include "runtime/base/arena.h"
#include "runtime/base/view.h"
#include "runtime/kernels/kernels.h"

namespace plait {

class PowerFeatures {
 public:
  PowerFeatures(Index dim, Index degree);  // degree >= 1

  Index dim() const { return dim_; }
  Index degree() const { return degree_; }
  Index size() const { return monomials(dim_, degree_); }
  std::span<const float> weights() const { return weights_; }  // [size]
  // The channels of monomial a, ascending: a multiset of `degree` channels.
  std::vector<Index> channels(Index feature) const;

  // Features [first, first + count): those whose first channel is in [channel, channel_end).
  struct Block {
    Index first, count, channel, channel_end;
  };
  std::span<const Block> blocks() const { return blocks_; }
  Index longest_block() const { return longest_block_; }

  // The monomials of degree - 1, from which a block follows with one product each.
  Index lower_size() const { return degree_ == 1 ? 0 : monomials(dim_, degree_ - 1); }
  // One vector. x [dim], lower [lower_size], y [block.count]
  void lower(const float* x, float* lower, const Kernels& k) const;
  void block(const Block& block, const float* x, const float* lower, float* y, const Kernels& k) const;
  // Many vectors side by side, one per column. x [dim][n] with ldx, lower [lower_size][n], y [block.count][n]
  void lower_columns(Index n, const float* x, Index ldx, float* lower, const Kernels& k) const;
  void block_columns(const Block& block, Index n, const float* x, Index ldx, const float* lower, float* y,
                     const Kernels& k) const;

  static Index monomials(Index dim, Index degree);  // C(dim + degree - 1, degree)

 private:
  void list_blocks();
  void list_weights();

  Index dim_, degree_;
  std::vector<float> weights_;
  std::vector<Block> blocks_;
  Index longest_block_ = 0;
};

}  // namespace plait
