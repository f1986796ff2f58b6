// --store in a verb: a stream that begins with what is stored of its text, and stores more of it on the way.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "tools/program.h"
#include "weights/prefix_store.h"

namespace plait {

struct StoreFlags {
  std::string folder;  // empty: no store
  std::uint64_t bytes = PrefixStoreOptions().bytes;
};
// Declares --store and --store-bytes.
void add_store(CLI::App& verb, StoreFlags& flags);

class Prefixes {
 public:
  explicit Prefixes(const StoreFlags& flags);

  // The stream after as much of `tokens` as is stored; notes as for PrefixStore::find. What follows is about
  // the last text that was looked up, here or by extend().
  Stream begin(std::shared_ptr<const Model> model, const StreamOptions& options,
               std::span<const Token> tokens, const std::string& notes = {});
  // For a stream that has, or can go back to, the first `held` of the tokens: if more of them is stored, it
  // becomes the stored one. A stream with edits and tokens the sampler produced stays, as those of the store
  // are all given. Returns whether it changed.
  bool extend(Stream& stream, std::shared_ptr<const Model> model, std::span<const Token> tokens, Index held);
  const PrefixStore::Found& found() const { return *found_; }  // but for its stream

  // How many tokens may be fed until at_stop() has to be asked again.
  Index until_stop(Index position) const { return found_->next_save(position) - position; }
  bool at_stop(Index position) const { return position == found_->next_save(position - 1); }
  void save(const Stream& stream, const std::string& notes = {});

  // What was hit, missed and stored, for people and for --json.
  void say(const Common& common) const;
  Json json() const;
  Json found_json() const;  // of the last text
  Json tally_json() const;  // of all

 private:
  std::string folder_;
  PrefixStore store_;
  std::optional<PrefixStore::Found> found_;
  std::size_t tokens_ = 0;
};

}  // namespace plait
