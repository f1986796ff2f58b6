// Settings and twin of `power_retention` (layers/attention/power_retention.md).
#pragma once

#include <memory>

#include "layers/reference/polynomial_attention.h"

namespace plait {

PolynomialAttentionSettings read_power_retention(Config& config);  // ends with config.finish()
std::shared_ptr<Twin> make_power_retention_twin(Config& config, const Parameters& parameters);

}  // namespace plait
