// Saved prefixes, on disk or in memory: a stream that begins like one seen before goes on from there instead
// of running the model. What lies in the folder, and what is promised of it, is on prefix_store.md.
//
//   PrefixStore store({.folder = "prefixes"});
//   PrefixStore::Found found = store.find(model, options, prompt);
//   for (Index stop : found.saves) {
//     found.stream.feed(tokens of the prompt up to stop);
//     store.save(found.owner, found.stream);
//   }
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/run/stream.h"
#include "weights/prefix_entry.h"

namespace plait {

struct PrefixStoreOptions {
  std::string folder;  // made if it is not there; empty: in memory, gone with the object
  std::uint64_t bytes = std::uint64_t{4} << 30;  // of entries held; the least recently used go
  // Tokens between two boundaries, rounded up to a multiple of the model's (Model::boundary).
  Index stride = 512;
};

// Not thread-safe. Several processes, and several objects, may use one folder at once.
class PrefixStore {
 public:
  // Throws Error if the folder cannot be made or read, or is that of another version.
  explicit PrefixStore(PrefixStoreOptions options);
  ~PrefixStore();
  PrefixStore(PrefixStore&&) noexcept;

  struct Found {
    Stream stream;      // after the first `hit` tokens of the prompt; with logits unless that is 0
    PrefixOwner owner;  // what the stream's entries are found by
    Index hit = 0;
    Index shared = 0;                // tokens of the prompt that some stored prompt begins with
    std::string miss;                // why not the whole prompt; empty if it was
    std::vector<std::string> notes;  // the callers' notes of the tokens hit, one string per entry
    std::vector<Index>
        saves;  // positions after `hit` to call save() at, ascending, the last the prompt's end
    // The first of them after `position`; behind the prompt the next boundary.
    Index next_save(Index position) const;
  };
  // The longest stored prefix of the prompt: model, numerics, edits and what `notes` names must be the same.
  // A damaged entry counts as a miss and is removed. Never throws for what is in the folder.
  Found find(std::shared_ptr<const Model> model, const StreamOptions& options, std::span<const Token> prompt,
             const std::string& notes = {});

  // Where the entry of a stream at `position` begins, if there are notes: the boundary before it.
  static Index base(const PrefixOwner& owner, Index position) {
    return (position - 1) / owner.stride * owner.stride;
  }
  // Stores a stream as it stands, with the caller's notes of the tokens since base(), if any. It builds on
  // the entry there; without notes, on the last boundary's before it that is stored, or on none. Does nothing
  // if it is there, or if the stream has edits and tokens the sampler produced. The state is copied, the rest
  // is done by a thread beside the caller's; one entry at a time, the next call to any member waits for it. A
  // failure (full disk, read-only folder, no room in the budget) is no error: see tally().
  void save(const PrefixOwner& owner, const Stream& stream, const std::string& notes = {});

  struct Tally {
    Index saved = 0, evicted = 0;
    std::uint64_t bytes = 0;  // saved
    std::string not_saved;    // why the first failure failed; empty if nothing did
  };
  const Tally& tally() const;
  std::uint64_t bytes() const;  // of all entries held; 0 where the index cannot be read

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plait
