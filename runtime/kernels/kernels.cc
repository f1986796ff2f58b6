#include "runtime/kernels/kernels.h"

#include <cstdlib>
#include <string>

#include "runtime/base/error.h"

namespace plait {

extern const Kernels kernels_portable;
#if defined(__x86_64__)
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

bool machine_has(Isa isa) {
  switch (isa) {
    case Isa::automatic:
    case Isa::portable:
      return true;
#if defined(__x86_64__)
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::avx512:  // with its bf16 dot product: without it `fast` would have other bits under the same
                       // name
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512bf16");
#endif
    default:
      return false;
  }
}

namespace {

Isa best() {
  for (Isa isa : {Isa::avx512, Isa::avx2})
    if (machine_has(isa)) return isa;
  return Isa::portable;
}

Isa chosen() {
  const char* name = std::getenv("PLAIT_ISA");
  const Isa isa = name && *name ? parse_isa(name) : Isa::automatic;
  return isa == Isa::automatic ? best() : isa;
}

}  // namespace

Isa resolve(Isa isa) {
  static const Isa automatic = chosen();
  return isa == Isa::automatic ? automatic : isa;
}

const Kernels& kernels(Isa isa) {
  const Isa resolved = resolve(isa);
  if (!machine_has(resolved))
    fail("this machine has no ", name_of(resolved), ", which was asked for (PLAIT_ISA)");
#if defined(__x86_64__)
  if (resolved == Isa::avx512) return kernels_avx512;
  if (resolved == Isa::avx2) return kernels_avx2;
#endif
  return kernels_portable;
}

}  // namespace plait
