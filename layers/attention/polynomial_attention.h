// Attention with weights (q.k)^p: no exponential, an optional decay and denominator, and therefore an exact
// state of constant size. See polynomial_attention.md.
#pragma once

#include "layers/reference/polynomial_attention.h"
#include "layers/reference/polysketch_attention.h"
#include "runtime/run/registry.h"

namespace plait {

Kind polynomial_attention_kind();
// The layer alone, for kinds that are one of its settings.
std::unique_ptr<Layer> make_polynomial_attention(const PolynomialAttentionSettings& settings,
                                                 const Grids& grids, const Parameters& parameters);
// With a sketch between projection and core.
std::unique_ptr<Layer> make_polysketch_attention(const PolysketchAttentionSettings& settings,
                                                 const Grids& grids, const Parameters& parameters);

}  // namespace plait
