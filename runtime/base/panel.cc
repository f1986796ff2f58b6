#include "runtime/base/panel.h"

#include <memory>

#include "runtime/base/arena.h"
#include "runtime/base/error.h"

namespace plait {
namespace {

// Calls visit(offset in the packed f32 order of [out][in] elements, row, column) for padding too.
template <class Visit>
void for_each_packed(Index out, Index in, Visit&& visit) {
  for (Index panel = 0; panel < out; panel += kPanel)
    for (Index k = 0; k < in; ++k)
      for (Index c = 0; c < kPanel; ++c) visit(panel * in + k * kPanel + c, panel + c, k);
}

Index pair_offset(Index padded_in, Index row, Index k) {
  return row / kPanel * kPanel * padded_in + k / 2 * kPanel * 2 + row % kPanel * 2 + k % 2;
}

bf16 narrow(float value) { return to_bf16(value); }
bf16 narrow(bf16 value) { return value; }
void widen(bf16 value, float& to) { to = to_float(value); }
void widen(bf16 value, bf16& to) { to = value; }

template <class T>
void pack_pairs(View<const T> rows, bf16* packed) {
  const Index padded = round_up(rows.cols, 2);
  for_each_packed(rows.rows, padded, [&](Index, Index row, Index k) {
    const bool inside = row < rows.rows && k < rows.cols;
    packed[pair_offset(padded, row, k)] = inside ? narrow(rows(row, k)) : bf16{0};
  });
}

template <class T>
void unpack_pairs(const bf16* packed, View<T> rows) {
  const Index padded = round_up(rows.cols, 2);
  for (Index row = 0; row < rows.rows; ++row)
    for (Index k = 0; k < rows.cols; ++k) widen(packed[pair_offset(padded, row, k)], rows(row, k));
}

}  // namespace

Index packed_elements(DType dtype, Index out, Index in) {
  return round_up(out, kPanel) * (dtype == DType::bf16 ? round_up(in, 2) : in);
}

Shape packed_shape(DType dtype, Index out, Index in) {
  if (dtype == DType::bf16) return {ceil_div(out, kPanel), ceil_div(in, 2), kPanel, 2};
  return {ceil_div(out, kPanel), in, kPanel};
}

void pack_f32(View<const float> rows, float* packed) {
  for_each_packed(rows.rows, rows.cols,
                  [&](Index at, Index row, Index k) { packed[at] = row < rows.rows ? rows(row, k) : 0.0f; });
}

void pack_bf16(View<const float> rows, bf16* packed) { pack_pairs(rows, packed); }
void pack_bf16(View<const bf16> rows, bf16* packed) { pack_pairs(rows, packed); }

void unpack_f32(const float* packed, View<float> rows) {
  for_each_packed(rows.rows, rows.cols, [&](Index at, Index row, Index k) {
    if (row < rows.rows) rows(row, k) = packed[at];
  });
}

void unpack_bf16(const bf16* packed, View<float> rows) { unpack_pairs(packed, rows); }
void unpack_bf16(const bf16* packed, View<bf16> rows) { unpack_pairs(packed, rows); }

Tensor pack(const Tensor& tensor, DType dtype) {
  if (tensor.layout == Layout::panels && tensor.dtype == dtype) return tensor;
  if (tensor.shape.size() != 2) fail("only matrices can be packed, found shape ", to_string(tensor.shape));
  if (dtype != DType::f32 && dtype != DType::bf16)
    fail("weights cannot be packed as ", name_of(dtype), ": plait has no kernels for it yet");
  std::vector<float> values = to_float(tensor);
  const View<const float> rows(values.data(), tensor.shape[0], tensor.shape[1]);
  const std::size_t bytes =
      static_cast<std::size_t>(packed_elements(dtype, rows.rows, rows.cols)) * bytes_of(dtype);
  auto buffer = std::make_shared<Buffer>(bytes);
  if (dtype == DType::f32)
    pack_f32(rows, buffer->as<float>());
  else
    pack_bf16(rows, buffer->as<bf16>());
  Tensor packed{tensor.shape, dtype, Layout::panels, nullptr, buffer->as<std::byte>(), bytes};
  packed.owner = std::move(buffer);
  return packed;
}

}  // namespace plait
