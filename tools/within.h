// Checks of a flag's number. CLI::Range lets NaN through and writes its bounds with all their digits;
// CLI::AsSizeValue takes -5 for a number near 2^64, and 0x10 for 16.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "runtime/base/error.h"

namespace plait {

// From `low` to `high`, both included.
inline CLI::Validator within(double low, double high) {
  const std::string range = cat("[", low, " - ", high, "]");
  return CLI::Validator(
      [=](std::string& word) {
        const double value = std::strtod(word.c_str(), nullptr);
        return low <= value && value <= high ? "" : cat(word, " is not in ", range);
      },
      "in " + range);
}

// Bytes, "500MB" being 500 * 10^6, of which there are `least` at least; for transform().
inline CLI::Validator byte_size(std::uint64_t least = 0) {
  return CLI::Validator(
      [=](std::string& word) -> std::string {
        const std::string given = word;
        if (given.find_first_of("-xX") != given.npos) return given + " is no number of bytes";
        if (std::strtod(given.c_str(), nullptr) >= 0x1p63) return given + " is more bytes than there are";
        const std::string trouble = CLI::AsSizeValue(true)(word);
        if (trouble.empty() && std::strtoull(word.c_str(), nullptr, 10) < least)
          return cat(given, " is less than ", least);
        return trouble;
      },
      "");
}

}  // namespace plait
