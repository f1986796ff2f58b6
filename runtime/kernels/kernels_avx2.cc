// The lanes come first: the functions are written in them.
#include "runtime/kernels/lanes_avx2.h"

#include "runtime/kernels/functions.h"

namespace plait {

extern const Kernels kernels_avx2;
// Constant-initialised: no instruction of the set runs before the machine is asked.
constinit const Kernels kernels_avx2 = make_table(Isa::avx2, "avx2");

}  // namespace plait
