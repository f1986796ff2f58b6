#include "tools/probe/location_data.h"

#include <cstdint>

#include "runtime/base/error.h"
#include "tools/append_file.h"
#include "tools/npy.h"

namespace plait::probe {

void write_samples(const LocationTask& any, const std::vector<double>& nus, Index width,
                   const Sampling& sampling, OutputFile& file) {
  const auto directions = location_directions(2, width, sampling.seed);
  file.write(npy_header(cat("[('nu', '<f8'), ('tokens', '<f4', (", any.tokens, ", ", width,
                            ")), ('location', '<i8'), ('label', '<f8')]"),
                        cat("(", static_cast<Index>(nus.size()) * sampling.draws, ",)")));
  LocationTask task = any;
  std::vector<char> record;
  for (const double nu : nus) {
    task.nu = nu;
    for (Index draw = 0; draw < sampling.draws; ++draw) {
      Source source(sampling.seed, static_cast<std::uint64_t>(draw));
      const LocationSample sample = draw_sample(task, directions[0], directions[1], source);
      record.clear();
      put(record, nu);
      for (const double x : sample.tokens) put(record, static_cast<float>(x));
      put(record, static_cast<std::int64_t>(sample.location));
      put(record, sample.label);
      file.write(record.data(), record.size());
    }
  }
}

}  // namespace plait::probe
