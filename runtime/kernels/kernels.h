// One table of functions per instruction set. The sources behind a table are compiled once per set from one
// text; with exact numerics every table gives the same bits (architecture section 4):
//   * a product's element is one chain of fused multiply-adds, k ascending, from zero or from what y holds;
//   * a sum along a row has 16 virtual lanes (element i adds to lane i mod 16), then one tree:
//     lane l += lane l+8, then l+4, l+2, l+1;
//   * elementwise functions are our own polynomials, the same routine for every element, tails by masked
//   lanes.
// Lengths may be any n >= 0, pointers need no alignment, outputs may equal (not partly overlap) inputs.
#pragma once

#include "runtime/base/half.h"
#include "runtime/base/numerics.h"
#include "runtime/base/view.h"
#include "runtime/kernels/table.h"

namespace plait {

// The table of `isa`; `automatic` is the best one this machine has, or what the environment variable
// PLAIT_ISA names. Throws Error if the machine lacks it or the name is unknown.
const Kernels& kernels(Isa isa = Isa::automatic);
// What `automatic` means here and now.
Isa resolve(Isa isa);
bool machine_has(Isa isa);

inline const Kernels& kernels(const Compute& compute) { return kernels(compute.isa); }

}  // namespace plait
