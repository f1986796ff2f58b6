#include "runtime/base/numerics.h"

#include "runtime/base/error.h"

namespace plait {

const char* name_of(Numerics numerics) { return numerics == Numerics::exact ? "exact" : "fast"; }

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::automatic:
      return "automatic";
    case Isa::portable:
      return "portable";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
  }
  return "";
}

Numerics parse_numerics(const std::string& text) {
  for (Numerics n : {Numerics::exact, Numerics::fast})
    if (text == name_of(n)) return n;
  fail("numerics must be exact or fast, found '", text, "'");
}

Isa parse_isa(const std::string& text) {
  for (Isa isa : {Isa::automatic, Isa::portable, Isa::avx2, Isa::avx512})
    if (text == name_of(isa)) return isa;
  fail("instruction set must be avx512, avx2, portable or automatic, found '", text, "'");
}

}  // namespace plait
