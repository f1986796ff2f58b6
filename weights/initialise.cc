#include "weights/initialise.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/base/arena.h"
#include "runtime/base/error.h"
#include "runtime/base/panel.h"
#include "runtime/base/parallel.h"
#include "runtime/run/model.h"
#include "weights/model_file.h"
#include "weights/resources.h"

namespace plait {
namespace {

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

// Draws by counter: draw n is a function of (key, n).
class Draws {
 public:
  Draws(std::uint64_t seed, const std::string& path) : key_(mix(seed + kStep)) {
    for (const char c : path) key_ = mix(key_ ^ static_cast<unsigned char>(c)) + kStep;
  }
  double uniform(std::uint64_t n) const {  // in (0, 1)
    return (static_cast<double>(mix(mix(key_ + n * kStep) ^ key_) >> 11) + 0.5) * 0x1p-53;
  }
  // Box and Muller: elements 2p and 2p + 1 are the two normals of the draws 2p and 2p + 1.
  void normals(std::uint64_t pair, double& even, double& odd) const {
    const double radius = std::sqrt(-2 * std::log(uniform(2 * pair)));
    const double angle = 6.283185307179586 * uniform(2 * pair + 1);
    even = radius * std::cos(angle);
    odd = radius * std::sin(angle);
  }

 private:
  static constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15ull;
  std::uint64_t key_;
};

// values[i] = mean + deviation * normal(first + i)
void fill_normal(const Draws& draws, std::uint64_t first, double mean, double deviation,
                 std::span<float> values) {
  const std::uint64_t end = first + values.size();
  for (std::uint64_t pair = first / 2; 2 * pair < end; ++pair) {
    double both[2];
    draws.normals(pair, both[0], both[1]);
    for (std::uint64_t n = std::max(first, 2 * pair); n < std::min(end, 2 * pair + 2); ++n)
      values[n - first] = static_cast<float>(mean + deviation * both[n % 2]);
  }
}

void fill_uniform(const Draws& draws, std::uint64_t first, double low, double high, double (*map)(double),
                  std::span<float> values) {
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(map(low + (high - low) * draws.uniform(first + i)));
}

// Elements [first, first + values.size()) of the tensor.
void fill(const TensorSpec& spec, const Draws& draws, std::uint64_t first, std::span<float> values) {
  const double fan_in = spec.shape.empty() ? 1 : static_cast<double>(spec.shape.back());
  const auto same = [](double x) { return x; };
  switch (spec.init) {
    case Init::normal:
      return fill_normal(draws, first, 0, 1 / std::sqrt(fan_in), values);
    case Init::unit_normal:
      return fill_normal(draws, first, 0, 1, values);
    case Init::embedding:
      return fill_normal(draws, first, 0, 0.02, values);
    case Init::small:
      return fill_normal(draws, first, 0, 0.02, values);
    case Init::around_one:
      return fill_normal(draws, first, 1, 0.1, values);
    case Init::zeros:
      return std::fill(values.begin(), values.end(), 0.0f);
    case Init::ones:
      return std::fill(values.begin(), values.end(), 1.0f);
    case Init::decay_log:
      return fill_uniform(
          draws, first, 1, 16, [](double x) { return std::log(x); }, values);
    case Init::time_step: {
      const auto inverse_softplus = [](double x) { return std::log(std::expm1(std::exp(x))); };
      return fill_uniform(draws, first, std::log(1e-3), std::log(1e-1), inverse_softplus, values);
    }
    case Init::taps:
      return fill_uniform(draws, first, -1 / std::sqrt(fan_in), 1 / std::sqrt(fan_in), same, values);
  }
}

Tensor empty_tensor(const TensorSpec& spec, DType dtype, Layout layout, std::size_t bytes) {
  auto buffer = std::make_shared<Buffer>(bytes);
  return {spec.shape, dtype, layout, buffer, buffer->as<void>(), bytes};
}

// Panel by panel: 32 rows are drawn and packed, so that the rows never stand in memory as a whole.
Tensor random_panels(const TensorSpec& spec, const Draws& draws, DType dtype) {
  const Index out = spec.shape[0], in = spec.shape[1], panels = ceil_div(out, kPanel);
  const std::size_t bytes = static_cast<std::size_t>(packed_elements(dtype, out, in)) * bytes_of(dtype);
  Tensor tensor = empty_tensor(spec, dtype, Layout::panels, bytes);
  auto* data = static_cast<std::byte*>(const_cast<void*>(tensor.data));
  const std::size_t panel_bytes = panels ? bytes / static_cast<std::size_t>(panels) : 0;
  parallel_for(available_threads(), panels, [&](Index p) {
    const Index rows = std::min(kPanel, out - p * kPanel);
    std::vector<float> values(static_cast<std::size_t>(rows * in));
    fill(spec, draws, static_cast<std::uint64_t>(p * kPanel * in), values);
    std::byte* place = data + static_cast<std::size_t>(p) * panel_bytes;
    const View<const float> view(values.data(), rows, in);
    if (dtype == DType::f32)
      pack_f32(view, reinterpret_cast<float*>(place));
    else
      pack_bf16(view, reinterpret_cast<bf16*>(place));
  });
  return tensor;
}

struct Wanted {
  std::string node, path;
  TensorSpec spec;
};

// In the order of their paths, which is the order of the digest.
std::vector<Wanted> in_order(const Json& card, const std::string& origin) {
  std::vector<Wanted> all;
  for (const auto& [node, specs] : Model::wanted(expand_card(card, origin)))
    for (const TensorSpec& spec : specs) all.push_back({node, tensor_path(node, spec.name), spec});
  std::sort(all.begin(), all.end(), [](const Wanted& a, const Wanted& b) { return a.path < b.path; });
  return all;
}

std::uint64_t stored_bytes(const TensorSpec& spec, DType dtype) {
  const bool packed = spec.matrix;
  const Index elements =
      packed ? packed_elements(dtype, spec.shape[0], spec.shape[1]) : element_count(spec.shape);
  return static_cast<std::uint64_t>(elements) * bytes_of(packed ? dtype : DType::f32);
}

// Zeros of any size that take no memory, because nobody writes to them.
std::shared_ptr<const void> endless_zeros(std::size_t bytes) {
  void* data = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) fail("a tensor of ", byte_text(bytes), " cannot be addressed");
  return {data, [bytes](const void* p) { ::munmap(const_cast<void*>(p), bytes); }};
}

}  // namespace

void check_card(const Json& card, const std::string& origin) {
  ModelData data;
  data.origin = origin;
  data.card = card;
  for (const auto& [node, specs] : Model::wanted(expand_card(card, origin)))
    for (const TensorSpec& spec : specs) {
      Tensor tensor{spec.shape, DType::f32, spec.matrix ? Layout::panels : Layout::rows, nullptr, nullptr, 0};
      const Index elements =
          spec.matrix ? packed_elements(DType::f32, spec.shape[0], spec.shape[1]) : element_count(spec.shape);
      tensor.bytes = static_cast<std::size_t>(elements) * sizeof(float);
      tensor.owner = endless_zeros(tensor.bytes);
      tensor.data = tensor.owner.get();
      data.tensors[node][spec.name] = std::move(tensor);
    }
  Model(std::move(data));
}

Tensor random_tensor(const TensorSpec& spec, const std::string& path, std::uint64_t seed, DType dtype) {
  const Draws draws(seed, path);
  if (spec.matrix) return random_panels(spec, draws, dtype);
  std::vector<float> values(static_cast<std::size_t>(element_count(spec.shape)));
  fill(spec, draws, 0, values);
  return make_tensor(spec.shape, values);
}

std::string write_random_model(const Json& card, const std::string& path, std::uint64_t seed, DType dtype,
                               const std::function<void(double fraction)>& progress) {
  if (dtype != DType::f32 && dtype != DType::bf16)
    fail("file '", path, "': random weights are written in f32 or bf16, not in ", name_of(dtype));
  const std::vector<Wanted> wanted = in_order(card, cat("card of '", path, "'"));
  std::uint64_t total = 0, done = 0, largest = 0;
  for (const Wanted& w : wanted) {
    total += stored_bytes(w.spec, dtype);
    largest = std::max(largest, stored_bytes(w.spec, dtype));
  }
  require_disk(total, path);
  require_memory(largest, cat("the largest tensor of '", path, "'"));
  ModelWriter writer(path, card, cat("random weights, seed ", seed));
  for (const Wanted& w : wanted) {
    writer.add(w.node, w.spec.name, random_tensor(w.spec, w.path, seed, dtype));
    done += stored_bytes(w.spec, dtype);
    if (progress) progress(static_cast<double>(done) / static_cast<double>(total));
  }
  return writer.finish();
}

}  // namespace plait
