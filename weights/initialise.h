// Random weights for a card: what `plait new` writes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "runtime/base/tensor.h"
#include "runtime/graph/config.h"

namespace plait {

// Writes a model file with random weights for every tensor the card wants and returns its digest. A value
// depends on (seed, tensor path, element) and the tensor's Init alone. Matrices are packed in panels of
// `dtype` (f32 or bf16), all other tensors are f32 in rows. One tensor is in memory at a time. `progress`
// gets the fraction done, in [0, 1].
std::string write_random_model(const Json& card, const std::string& path, std::uint64_t seed, DType dtype,
                               const std::function<void(double fraction)>& progress = {});

// Builds the model a card describes, on zeros that take no memory: what would be refused when the file is
// opened is refused before it is written. Throws Error; `origin` names the card in messages.
void check_card(const Json& card, const std::string& origin);

// One such tensor. `path` is its path in the file: "/blocks/0/mixer/q".
Tensor random_tensor(const TensorSpec& spec, const std::string& path, std::uint64_t seed, DType dtype);

}  // namespace plait
