#include "tools/prefixes.h"

#include <CLI/CLI.hpp>

#include "runtime/base/error.h"
#include "tools/within.h"

namespace plait {
namespace {

Json text_or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

}  // namespace

void add_store(CLI::App& verb, StoreFlags& flags) {
  auto* store = verb.add_option("--store", flags.folder,
                                "Go on from the longest beginning of the text that is stored in this folder, "
                                "and store the rest; changes no bit")
                    ->type_name("DIR");
  verb.add_option("--store-bytes", flags.bytes,
                  "What the store may hold, e.g. 500MB (default: 4 GiB); the least recently used goes")
      ->transform(byte_size(1))
      ->needs(store)
      ->type_name("BYTES");
}

Prefixes::Prefixes(const StoreFlags& flags) : folder_(flags.folder), store_({flags.folder, flags.bytes}) {}

Stream Prefixes::begin(std::shared_ptr<const Model> model, const StreamOptions& options,
                       std::span<const Token> tokens, const std::string& notes) {
  tokens_ = tokens.size();
  found_ = store_.find(std::move(model), options, tokens, notes);
  return std::move(found_->stream);
}

bool Prefixes::extend(Stream& stream, std::shared_ptr<const Model> model, std::span<const Token> tokens,
                      Index held) {
  Stream stored = begin(std::move(model), stream.options(), tokens);
  if (found_->hit <= held || (!stream.sampled().empty() && !stream.edits().empty())) return false;
  stream = std::move(stored);
  return true;
}

void Prefixes::save(const Stream& stream, const std::string& notes) {
  store_.save(found_->owner, stream, notes);
}

void Prefixes::say(const Common& common) const {
  const PrefixStore::Tally& tally = store_.tally();
  note(common, cat("store: hit ", found_->hit, " of ", tokens_, " tokens",
                   found_->miss.empty() ? "" : ", miss: ", found_->miss, "; stored ", tally.saved,
                   tally.saved == 1 ? " entry, " : " entries, ",
                   human_bytes(static_cast<double>(tally.bytes)), ", evicted ", tally.evicted));
  if (!tally.not_saved.empty()) note(common, cat("store: not stored: ", tally.not_saved));
}

Json Prefixes::found_json() const {
  return {{"tokens", tokens_},
          {"hit", found_->hit},
          {"shared", found_->shared},
          {"miss", text_or_null(found_->miss)}};
}

Json Prefixes::tally_json() const {
  const PrefixStore::Tally& tally = store_.tally();
  return {{"folder", folder_},
          {"stored", tally.saved},
          {"stored_bytes", tally.bytes},
          {"evicted", tally.evicted},
          {"not_stored", text_or_null(tally.not_saved)},
          {"bytes", store_.bytes()}};
}

Json Prefixes::json() const {
  Json all = found_json();
  all.update(tally_json());
  return all;
}

}  // namespace plait
