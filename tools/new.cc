// plait new: a model with random weights from a card.
#include <sys/mman.h>

#include <CLI/CLI.hpp>

#include "runtime/base/error.h"
#include "runtime/base/panel.h"
#include "tools/program.h"
#include "tools/verbs.h"
#include "weights/initialise.h"

namespace plait {
namespace {

// Zeros of any size that take no memory, because nobody writes to them.
std::shared_ptr<const void> endless_zeros(std::size_t bytes) {
  void* data = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED)
    fail("a tensor of ", human_bytes(static_cast<double>(bytes)), " cannot be addressed");
  return {data, [bytes](const void* p) { ::munmap(const_cast<void*>(p), bytes); }};
}

// Builds the model the card describes, on zeros: what would be refused when the file is opened is refused
// before it is written.
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

struct New {
  Common common;
  std::string card, destination, dtype = "f32";

  int run() const {
    const Json json = read_json(card);
    const std::uint64_t seed = common.seed.value_or(0);
    check_card(json, card);
    Progress progress(common, "writing");
    const std::string digest = write_random_model(json, destination, seed, parse_dtype(dtype),
                                                  [&](double fraction) { progress.update(fraction); });
    progress.clear();
    note(common, cat("wrote '", destination, "' (", dtype, ", seed ", seed, ")"));
    write_json(common, {{"model", destination}, {"dtype", dtype}, {"seed", seed}, {"sha256", digest}});
    return kDone;
  }
};

}  // namespace

void add_new(CLI::App& program, Action& chosen) {
  auto args = std::make_shared<New>();
  CLI::App* verb = program.add_subcommand("new", "Make a model with random weights from a card");
  verb->add_option("CARD", args->card, "The card, JSON")->required();
  verb->add_option("DST", args->destination, "The model file to write")->required();
  verb->add_option("--dtype", args->dtype, "Of matrices: f32 or bf16 (default: f32)")
      ->check(CLI::IsMember({"f32", "bf16", "q8", "q4"}));
  add_common(*verb, args->common, "not used");
  verb->callback([args, &chosen] { chosen = [args] { return args->run(); }; });
}

}  // namespace plait
