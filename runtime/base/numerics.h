// The choices that may change bits, and nothing else (architecture section 4).
#pragma once

#include <string>

#include "runtime/base/isa.h"
#include "runtime/base/view.h"

namespace plait {

// exact: f32 activations, weights widened; the same bits on every instruction set.
// fast: bf16 weights meet activations rounded to bf16; the same bits for one instruction set.
enum class Numerics { exact, fast };

// Absolute grids of the arithmetic, a property of the card. Changing one changes bits.
struct Grids {
  Index chunk = 32;       // recurrences fold their open rows every `chunk` positions
  Index key_block = 64;   // keys are walked in blocks of this many positions ...
  Index key_span = 1024;  // ... inside spans of this many, which combine in ascending order
};

// How one run computes. `threads` never changes a bit; the other two may.
struct Compute {
  Numerics numerics = Numerics::exact;
  Isa isa = Isa::automatic;
  int threads = 1;
};

// Raised whenever a release changes any output bit of any model.
inline constexpr int kArithmeticVersion = 1;

const char* name_of(Numerics numerics);
const char* name_of(Isa isa);
Numerics parse_numerics(const std::string& text);  // throws Error on anything but exact, fast
Isa parse_isa(const std::string& text);            // throws Error on an unknown name

}  // namespace plait
