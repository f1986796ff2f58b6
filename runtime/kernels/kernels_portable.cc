// The lanes come first: the functions are written in them.
#include "runtime/kernels/lanes_portable.h"

#include "runtime/kernels/functions.h"

namespace plait {

extern const Kernels kernels_portable;
// Constant-initialised: no instruction of the set runs before the machine is asked.
constinit const Kernels kernels_portable = make_table(Isa::portable, "portable");

}  // namespace plait
