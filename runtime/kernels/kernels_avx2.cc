#include "runtime/kernels/functions.h"
#include "runtime/kernels/lanes_avx2.h"

namespace plait {

extern const Kernels kernels_avx2;
// Constant-initialised: no instruction of the set runs before the machine is asked.
constinit const Kernels kernels_avx2 = make_table(Isa::avx2, "avx2");

}  // namespace plait
