// The instruction sets plait has kernels for. Alone in a C-clean header, because the sources compiled with
// per-set flags include it.
#pragma once

namespace plait {

// automatic: the best this machine has, or what PLAIT_ISA names.
enum class Isa { automatic, portable, avx2, avx512 };

}  // namespace plait
