#include "runtime/base/tensor.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

#include "runtime/base/arena.h"
#include "runtime/base/error.h"
#include "runtime/base/half.h"
#include "runtime/base/panel.h"

namespace plait {
namespace {

constexpr std::array kDTypes = {"f32", "f64", "bf16", "f16", "q8", "q4"};

template <class T>
auto widen(T value) {
  if constexpr (std::is_floating_point_v<T>)
    return value;
  else
    return to_float(value);
}

// Plain rows of any rank, element by element.
template <class T, class Out>
void copy_rows(const Tensor& tensor, Out* out) {
  const auto* in = static_cast<const T*>(tensor.data);
  const Index count = element_count(tensor.shape);
  for (Index i = 0; i < count; ++i) out[i] = static_cast<Out>(widen(in[i]));
}

std::vector<float> unpacked(const Tensor& tensor) {
  assert(tensor.shape.size() == 2);
  std::vector<float> rows(static_cast<std::size_t>(element_count(tensor.shape)));
  const View<float> view(rows.data(), tensor.shape[0], tensor.shape[1]);
  if (tensor.dtype == DType::f32)
    unpack_f32(static_cast<const float*>(tensor.data), view);
  else
    unpack_bf16(static_cast<const bf16*>(tensor.data), view);
  return rows;
}

template <class Out>
std::vector<Out> widened(const Tensor& tensor) {
  if (tensor.layout == Layout::panels) {
    const std::vector<float> rows = unpacked(tensor);
    return {rows.begin(), rows.end()};
  }
  std::vector<Out> values(static_cast<std::size_t>(element_count(tensor.shape)));
  switch (tensor.dtype) {
    case DType::f32:
      copy_rows<float>(tensor, values.data());
      break;
    case DType::f64:
      copy_rows<double>(tensor, values.data());
      break;
    case DType::bf16:
      copy_rows<bf16>(tensor, values.data());
      break;
    case DType::f16:
      copy_rows<f16>(tensor, values.data());
      break;
    default:
      fail("tensors of type ", name_of(tensor.dtype), " cannot be read as floats");
  }
  return values;
}

}  // namespace

const char* name_of(DType dtype) { return kDTypes[static_cast<std::size_t>(dtype)]; }
const char* name_of(Layout layout) { return layout == Layout::rows ? "rows" : "panels"; }

DType parse_dtype(const std::string& text) {
  const auto found = std::find(kDTypes.begin(), kDTypes.end(), text);
  if (found == kDTypes.end()) fail("type must be f32, f64, bf16, f16, q8 or q4, found '", text, "'");
  return static_cast<DType>(found - kDTypes.begin());
}

std::size_t bytes_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return 4;
    case DType::f64:
      return 8;
    case DType::bf16:
    case DType::f16:
      return 2;
    case DType::q8:
    case DType::q4:
      break;
  }
  fail("type ", name_of(dtype), " is reserved: plait has no kernels for quantised weights yet");
}

double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return 0x1p-24;
    case DType::f64:
      return 0x1p-53;
    case DType::bf16:
      return 0x1p-8;
    default:
      assert(dtype == DType::f16);
      return 0x1p-11;
  }
}

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += cat(i ? ", " : "", shape[i]);
  return text + "]";
}

Index element_count(const Shape& shape) {
  Index count = 1;
  for (Index size : shape) count *= size;
  return count;
}

Tensor make_tensor(Shape shape, std::span<const float> values) {
  assert(element_count(shape) == static_cast<Index>(values.size()));
  auto buffer = std::make_shared<Buffer>(values.size_bytes());
  std::memcpy(buffer->as<float>(), values.data(), values.size_bytes());
  Tensor tensor{std::move(shape), DType::f32,          Layout::rows,
                nullptr,          buffer->as<float>(), values.size_bytes()};
  tensor.owner = std::move(buffer);
  return tensor;
}

std::vector<double> to_double(const Tensor& tensor) { return widened<double>(tensor); }
std::vector<float> to_float(const Tensor& tensor) { return widened<float>(tensor); }

const Tensor& Parameters::tensor(const std::string& name) const {
  const auto found = tensors_.find(name);
  assert(found != tensors_.end());
  return found->second;
}

std::span<const float> Parameters::vector(const std::string& name) const {
  const Tensor& found = tensor(name);
  assert(found.dtype == DType::f32 && found.layout == Layout::rows);
  return {static_cast<const float*>(found.data), static_cast<std::size_t>(element_count(found.shape))};
}

void Parameters::check(const std::string& node, const std::vector<TensorSpec>& specs,
                       const std::map<std::string, Tensor>& tensors) {
  for (const TensorSpec& spec : specs) {
    const auto found = tensors.find(spec.name);
    if (found == tensors.end())
      fail(node, ": tensor '", spec.name, "' of shape ", to_string(spec.shape), " is missing");
    const Tensor& tensor = found->second;
    if (tensor.shape != spec.shape)
      fail(node, ": tensor '", spec.name, "' has shape ", to_string(tensor.shape), ", expected ",
           to_string(spec.shape));
    if (!spec.matrix && (tensor.dtype != DType::f32 || tensor.layout != Layout::rows))
      fail(node, ": tensor '", spec.name, "' must be stored as plain f32, found ", name_of(tensor.dtype),
           " in ", name_of(tensor.layout));
  }
  for (const auto& [name, tensor] : tensors)
    if (std::none_of(specs.begin(), specs.end(),
                     [&name = name](const TensorSpec& spec) { return spec.name == name; }))
      fail(node, ": tensor '", name, "' of shape ", to_string(tensor.shape), " is not used by this layer");
}

}  // namespace plait
