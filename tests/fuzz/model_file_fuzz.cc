// Model files: an Error, or what a model can be made of or not. libhdf5 crashes on some; the child that walks
// the file first (weights/probe.h) crashes in our place.
#include "runtime/base/error.h"
#include "tests/fuzz/temporary_file.h"
#include "weights/model_file.h"

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  plait::fuzz::count_children();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace plait;
  const fuzz::TemporaryFile file({reinterpret_cast<const char*>(data), size});
  try {
    load(file.path());
  } catch (const Error&) {
  }
  return 0;
}
