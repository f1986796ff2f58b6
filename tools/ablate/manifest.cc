#include "tools/ablate/manifest.h"

#include <unistd.h>

#include <fstream>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "runtime/base/words.h"
#include "tools/ablate/components.h"

namespace plait::ablate {
namespace {

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

Json model_json(const ManifestInput& in) {
  const Components components = components_of(in.model);
  std::vector<std::string> types(static_cast<std::size_t>(components.blocks));
  for (const Component& mixer : components.mixers) {
    auto& type = types[static_cast<std::size_t>(mixer.block)];
    type = cat(type, type.empty() ? "" : "+", joined(mixer.kinds, "+"));
  }
  std::string dtype = "f32";
  for (int n = 0; n < in.model.node_count(); ++n)
    for (const auto& [name, tensor] : in.model.parameters(n).all())
      if (tensor.dtype != DType::f32) dtype = name_of(tensor.dtype);
  return {{"name", in.model.card().name},         {"file", in.model_file},
          {"family", in.model.card().family},     {"layer_types", types},
          {"params", in.model.parameter_count()}, {"hdf5_sha256", sha256_of_file(in.model_file)},
          {"tensors_sha256", in.model.digest()},  {"dtype", dtype}};
}

std::string tokenizer_sha256(const Tokenizer& tokenizer) {
  Digest digest;
  for (const auto& [name, bytes] : tokenizer.files()) {
    digest.add(name);
    digest.add(bytes);
  }
  return digest.hex();
}

}  // namespace

std::string sha256_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail("file '", path, "' cannot be read");
  Digest digest;
  std::vector<char> block(1 << 20);
  while (file.read(block.data(), static_cast<std::streamsize>(block.size())) || file.gcount() > 0)
    digest.add(block.data(), static_cast<std::size_t>(file.gcount()));
  return digest.hex();
}

Json manifest_of(const ManifestInput& in) {
  Json data = Json::array();
  for (const Text& text : in.texts)
    data.push_back({{"name", text.name},
                    {"file", text.file},
                    {"split", ""},
                    {"documents", text.documents},
                    {"n_docs", text.document_count},
                    {"n_tokens", text.token_count()},
                    {"sha256", text.sha256}});
  Json numbers = arithmetic(in.model.card(), in.compute);
  numbers["digest"] = arithmetic_digest(in.model.card(), in.compute);
  const auto memory = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                      static_cast<std::uint64_t>(::sysconf(_SC_PAGE_SIZE));
  return {{"schema_version", 1},
          {"engine",
           {{"git", PLAIT_GIT},
            {"compiler", __VERSION__},
            {"flags", PLAIT_FLAGS},
            {"simd", name_of(in.compute.isa)},
            {"threads", in.compute.threads}}},
          {"device", {{"name", processor()}, {"mem", memory}}},
          {"model", model_json(in)},
          {"tokenizer_sha256", tokenizer_sha256(in.tokenizer)},
          {"data", std::move(data)},
          {"arithmetic", std::move(numbers)},
          {"numerics", {{"logits", "f32"}, {"loss", "f32 log-softmax"}, {"state", "f32"}, {"accum", "f64"}}},
          {"seeds", {{"study", in.study.seed}}},
          {"plan", {{"confirmatory", in.study.plan.confirmatory}, {"stop_rule", in.study.plan.stop_rule}}},
          {"study", to_json(in.study)},
          {"designs", to_json(in.plan)}};
}

}  // namespace plait::ablate
