// plait convert: a published checkpoint becomes a model file, and a model file a checkpoint.
#include "weights/convert.h"

#include <CLI/CLI.hpp>
#include <filesystem>

#include "runtime/base/error.h"
#include "runtime/text/tokenizer.h"
#include "tools/program.h"
#include "tools/verbs.h"

namespace plait {
namespace {

struct Convert {
  Common common;
  std::string source, destination, dtype;
  bool fold = false;

  int run() const {
    std::error_code ignored;
    return std::filesystem::is_directory(source, ignored) ? import() : leave();
  }

 private:
  int import() const {
    ConvertOptions options;
    if (!dtype.empty()) options.dtype = parse_dtype(dtype);
    if (fold) options.multipliers = Multipliers::folded;
    options.compile_tokenizer = [&](const TokenizerFiles& files) { return compile_tokenizer(files, source); };
    Progress progress(common, "converting");
    options.progress = [&](double fraction) { progress.update(fraction); };
    const Conversion result = convert_checkpoint(source, destination, options);
    progress.clear();
    report(result);
    return kDone;
  }

  void report(const Conversion& result) const {
    std::vector<std::vector<std::string>> rows = {{"family", result.family},
                                                  {"parameters", std::to_string(result.parameters)}};
    for (const auto& [kind, count] : result.nodes_by_kind)
      rows.push_back({"  " + kind, std::to_string(count)});
    for (const std::string& text : result.notes) rows.push_back({"note", text});
    rows.push_back({"sha256", result.digest});
    if (!common.json_only()) print(table(rows, "ll"));
    flush_output();
    write_json(common, {{"model", destination},
                        {"family", result.family},
                        {"parameters", result.parameters},
                        {"nodes_by_kind", result.nodes_by_kind},
                        {"notes", result.notes},
                        {"dtype", dtype.empty() ? "as stored" : dtype},
                        {"multipliers", fold ? "folded" : "settings"},
                        {"sha256", result.digest}});
  }

  int leave() const {
    if (!dtype.empty() || fold)
      throw UsageError(
          cat("'", source, "' is no folder: --dtype and --fold-multipliers are for reading one"));
    Progress progress(common, "writing");
    export_checkpoint(source, destination, [&](double fraction) { progress.update(fraction); });
    progress.clear();
    note(common, cat("wrote '", destination, "'"));
    write_json(common, {{"model", source}, {"folder", destination}});
    return kDone;
  }
};

}  // namespace

void add_convert(CLI::App& program, Action& chosen) {
  auto args = std::make_shared<Convert>();
  CLI::App* verb = program.add_subcommand(
      "convert", "Make a model file of a Hugging Face folder, or such a folder of a model");
  verb->add_option("SRC", args->source, "A folder with config.json and safetensors, or a model file")
      ->required();
  verb->add_option("DST", args->destination, "The model file to write, or the folder (absent or empty)")
      ->required();
  verb->add_option("--dtype", args->dtype, "Of matrices: f32 or bf16 (default: as stored)")
      ->check(CLI::IsMember({"f32", "bf16", "q8", "q4"}));
  verb->add_flag("--fold-multipliers", args->fold,
                 "Multiply a family's constant factors into its weights, which rounds");
  add_common(*verb, args->common, "not used");
  verb->callback([args, &chosen] { chosen = [args] { return args->run(); }; });
}

}  // namespace plait
