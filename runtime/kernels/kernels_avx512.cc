// The lanes come first: the functions are written in them.
#include "runtime/kernels/lanes_avx512.h"

#include "runtime/kernels/functions.h"

namespace plait {

extern const Kernels kernels_avx512;
// Constant-initialised: no instruction of the set runs before the machine is asked.
constinit const Kernels kernels_avx512 = make_table(Isa::avx512, "avx512");

}  // namespace plait
