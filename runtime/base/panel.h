// Every packed layout with its plain pack and unpack. A panel is 32 output columns wide:
//   f32   [out/32][in][32]
//   bf16  [out/32][in/2][32][2]     pairs along `in`, as the dot-product instruction reads them
// Out and in (to a multiple of 2) are padded with zeros.
#pragma once

#include "runtime/base/half.h"
#include "runtime/base/tensor.h"
#include "runtime/base/view.h"

namespace plait {

inline constexpr Index kPanel = 32;

// Elements a packed [out, in] matrix takes, padding included.
Index packed_elements(DType dtype, Index out, Index in);
// The stored shape of the packed dataset: {out/32, in, 32} or {out/32, in/2, 32, 2}.
Shape packed_shape(DType dtype, Index out, Index in);

// rows [out, in] -> packed[packed_elements]
void pack_f32(View<const float> rows, float* packed);
void pack_bf16(View<const float> rows, bf16* packed);  // rounds to nearest even
void pack_bf16(View<const bf16> rows, bf16* packed);
// packed -> rows [out, in]
void unpack_f32(const float* packed, View<float> rows);
void unpack_bf16(const bf16* packed, View<float> rows);
void unpack_bf16(const bf16* packed, View<bf16> rows);

// The same tensor in panels of `dtype` (f32 or bf16); returns it unchanged if it is already so.
Tensor pack(const Tensor& tensor, DType dtype);

}  // namespace plait
