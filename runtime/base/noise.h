// Normal numbers from a counter: number i of a key is the same whatever was drawn before, on every machine.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "runtime/base/view.h"

namespace plait {

// A key made of parts (a seed, a layer, a head, a position); neighbouring parts give unrelated keys.
std::uint64_t noise_key(std::initializer_list<std::uint64_t> parts);

// x[i] += scale * z_i, z_0, z_1, ... the standard normal numbers of `key`.
void add_noise(std::uint64_t key, float scale, float* x, Index n);

// The standard normal quantile of p in (0, 1), within 1e-6 relative (Wichura, Applied Statistics 37, 1988,
// algorithm AS 241, PPND7).
double normal_quantile(double p);

}  // namespace plait
