#include "weights/prefix_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <map>
#include <optional>
#include <set>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "weights/file_lock.h"
#include "weights/json_text.h"
#include "weights/prefix_index.h"
#include "weights/resources.h"
#include "weights/temporary_file.h"

namespace plait {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSuffix = ".prefix";
constexpr std::size_t kHashLength = 64;
// An entry where two prompts part is worth its bytes if it spares this many tokens beyond the last boundary.
constexpr Index kBranchTokens = 32;
constexpr std::chrono::seconds kLockPatience{10};

bool is_hash(std::string_view name) {
  return name.size() == kHashLength && std::all_of(name.begin(), name.end(), [](char c) {
           return ('0' <= c && c <= '9') || ('a' <= c && c <= 'f');
         });
}

class FolderLock {
 public:
  // LOCK_SH: held while an entry is written. LOCK_EX: nobody writes one.
  FolderLock(const std::string& folder, int how, std::chrono::milliseconds patience) {
    fd_ = ::open((folder + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd_ >= 0 && lock_file(fd_, how, patience)) return;
    error_ = errno;
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  ~FolderLock() {
    if (fd_ >= 0) ::close(fd_);
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  bool held() const { return fd_ >= 0; }
  // Why it is not held.
  std::string trouble() const {
    return error_ == EWOULDBLOCK || error_ == EINTR ? "is busy"
                                                    : cat("cannot be locked: ", std::strerror(error_));
  }

 private:
  int fd_ = -1, error_ = 0;
};

// An entry that cannot be read now, and may be good all the same.
class Unreadable : public Error {
 public:
  using Error::Error;
};

std::string read_whole(const std::string& path) {
  struct stat stats {};
  if (::lstat(path.c_str(), &stats) == 0 && S_ISREG(stats.st_mode)) {
    // The bytes, what is unpacked of them, and the states.
    const std::uint64_t need = 3 * static_cast<std::uint64_t>(stats.st_size), available = available_memory();
    if (need > available)
      throw Unreadable(cat("file '", path, "' needs ", byte_text(need), " of memory, ", byte_text(available),
                           " are available"));
  }
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) {
    const std::string text = cat("cannot open file '", path, "': ", std::strerror(errno));
    if (errno == ENOENT || errno == ELOOP) throw Error(text);
    throw Unreadable(text);
  }
  std::string bytes;
  std::size_t done = 0;
  bool good = ::fstat(fd, &stats) == 0 && S_ISREG(stats.st_mode);
  if (good) bytes.resize(static_cast<std::size_t>(stats.st_size));
  while (good && done < bytes.size()) {
    const ssize_t got = ::read(fd, bytes.data() + done, bytes.size() - done);
    if (got < 0 && errno == EINTR) continue;
    good = got > 0;
    if (good) done += static_cast<std::size_t>(got);
  }
  ::close(fd);
  if (!good) fail("cannot read file '", path, "'");
  return bytes;
}

void write_whole(const std::string& path, const std::string& bytes, const std::string& shown) {
  require_disk(bytes.size(), path);
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  bool good = fd >= 0;
  for (std::size_t done = 0; good && done < bytes.size();) {
    const ssize_t count = ::write(fd, bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    good = count > 0;
    if (good) done += static_cast<std::size_t>(count);
  }
  const int error = errno;
  if (fd >= 0) good = ::close(fd) == 0 && good;
  if (!good) fail("cannot write file '", shown, "': ", std::strerror(error));
}

std::string key_after(const std::string& base, std::span<const Token> tokens) {
  Digest digest;
  digest.add(base);
  digest.add(tokens.data(), tokens.size_bytes());
  return digest.hex();
}

// Keys of the boundaries 0, stride, 2 stride, ... at or before the end.
std::vector<std::string> boundary_keys(std::span<const Token> tokens, Index stride) {
  std::vector<std::string> keys = {""};
  const auto step = static_cast<std::size_t>(stride);
  for (std::size_t at = step; at <= tokens.size(); at += step)
    keys.push_back(key_after(keys.back(), tokens.subspan(at - step, step)));
  return keys;
}

// The stride is part of the owner, so entries of another one are never taken.
PrefixOwner owner_of(const Stream& stream, Index stride, const std::string& notes) {
  const Snapshot empty = stream.snapshot();
  return {empty.model_identity, empty.arithmetic, empty.edits,
          round_up(std::max(stride, Index{1}), stream.model().boundary()), notes};
}

// The key of all tokens, from the keys of the boundaries.
std::string key_of(std::span<const Token> tokens, const std::vector<std::string>& keys, Index stride) {
  const std::size_t base = (tokens.size() - 1) / static_cast<std::size_t>(stride);
  return key_after(keys[base], tokens.subspan(base * static_cast<std::size_t>(stride)));
}

struct Match {
  PrefixIndex::Row row;  // the deepest entry within the prompt; no hash if there is none
  Index shared = 0;
};

std::vector<Index> save_positions(Index hit, Index shared, Index end, Index stride) {
  std::vector<Index> all;
  for (Index at = (hit / stride + 1) * stride; at < end; at += stride) all.push_back(at);
  if (shared < end && shared - std::max(hit, shared / stride * stride) >= kBranchTokens)
    all.insert(std::upper_bound(all.begin(), all.end(), shared), shared);
  if (end > hit) all.push_back(end);
  return all;
}

}  // namespace

struct PrefixStore::Impl {
  struct Request {
    std::shared_ptr<const Model> model;
    const StreamOptions& options;
    std::span<const Token> prompt;
  };

  PrefixStoreOptions options;
  bool writable = true;
  std::optional<PrefixIndex> index;                 // none where it could not be made anew
  std::map<std::string, std::string> memory;        // hash -> entry, without a folder
  std::string news;                                 // what happened to the index, until a find tells it
  std::string no_index = "the store has no index";  // why
  bool damaged = false;                             // the index turned out to be
  Tally tally;
  std::future<void> writing;  // all else waits for it: nothing here is used by two threads at once

  bool on_disk() const { return !options.folder.empty(); }
  std::string file(const std::string& name) const { return (fs::path(options.folder) / name).string(); }
  std::string entry_file(const std::string& hash) const { return file(hash + kSuffix); }
  std::string name_of(const PrefixIndex::Row& row) const {
    return on_disk() ? cat("file '", entry_file(row.hash), "'") : cat("the entry at ", row.position);
  }

  void open();
  void open_index();
  bool holds_a_store() const;
  void make_anew();
  void mend();
  void sweep();
  void forget(const std::vector<std::string>& hashes);
  void drop(const std::string& hash);
  std::string bytes_of(const std::string& hash) const;
  void put(const PackedEntry& packed, const PrefixOwner& owner, PrefixIndex::Row row);

  Match deepest(std::int64_t owner, Index stride, std::span<const Token> prompt,
                const std::set<std::string>& passed) const;
  std::string search(Found& found, const Request& request);
  std::string take(Found& found, const PrefixIndex::Row& row, const Request& request);
  std::string reason(const Found& found, std::span<const Token> prompt,
                     const std::vector<std::pair<std::int64_t, PrefixOwner>>& owners) const;
  std::vector<std::pair<std::int64_t, PrefixOwner>> owners() const;
  void save(const PrefixOwner& owner, const Stream& stream, const std::string& notes);
  void not_saved(Index position, const std::exception& error);
  void wait() {
    if (writing.valid()) writing.get();
    if (damaged) mend();
  }
};

// -- The folder

void PrefixStore::Impl::open() {
  if (!on_disk()) {
    index.emplace(":memory:", PrefixIndex::Access::read_write);
    return;
  }
  std::error_code error;
  fs::create_directories(options.folder, error);
  if (!fs::is_directory(options.folder))
    fail("cannot use '", options.folder,
         "' as a prefix store: ", error ? error.message() : std::string("it is no folder"));
  writable = ::faccessat(AT_FDCWD, options.folder.c_str(), R_OK | W_OK | X_OK, AT_EACCESS) == 0;
  try {
    open_index();
  } catch (const BusyIndex& busy) {
    index.reset();
    no_index = busy.what();
  }
}

void PrefixStore::Impl::open_index() {
  try {
    index.emplace(file("index.sqlite"),
                  writable ? PrefixIndex::Access::read_write : PrefixIndex::Access::read_only);
    if (writable) sweep();
  } catch (const DamagedIndex& damage) {
    if (!holds_a_store())
      fail("'", file("index.sqlite"), "' is no index of a prefix store, and '", options.folder,
           "' holds nothing else of one; it is left as it is");
    if (!writable) throw BusyIndex(damage.what());
    mend();
  }
}

// Whether an index that is none was one: entries lie beside it, or it is all zeros, as after a power cut.
bool PrefixStore::Impl::holds_a_store() const {
  std::ifstream bytes(file("index.sqlite"), std::ios::binary);
  if (std::all_of(std::istreambuf_iterator<char>(bytes), {}, [](char c) { return c == 0; })) return true;
  std::error_code error;
  for (const auto& item : fs::directory_iterator(options.folder, error)) {
    const std::string name = item.path().filename().string();
    if (name.ends_with(kSuffix) &&
        is_hash(std::string_view(name).substr(0, name.size() - std::strlen(kSuffix))))
      return true;
  }
  return false;
}

// The entries go with their index: they are copies of what can be computed.
void PrefixStore::Impl::make_anew() {
  const FolderLock lock(options.folder, LOCK_EX, kLockPatience);
  if (!lock.held())
    fail("the index of the prefix store '", options.folder, "' is damaged, and the store ", lock.trouble());
  index.reset();
  for (const char* name : {"index.sqlite", "index.sqlite-journal"}) ::unlink(file(name).c_str());
  index.emplace(file("index.sqlite"), PrefixIndex::Access::read_write);
  news = "the store's index was damaged and made anew";
}

void PrefixStore::Impl::mend() {
  damaged = false;
  if (!writable || !on_disk()) return;
  try {
    make_anew();
    if (!tally.not_saved.empty()) tally.not_saved += "; " + news;
  } catch (const Error& error) {
    index.reset();
    no_index = error.what();
  }
}

// Removes what killed writers left: temporary files and entries that are in no index. Nobody writes
// meanwhile; if somebody does, another time is as good.
void PrefixStore::Impl::sweep() {
  const FolderLock lock(options.folder, LOCK_EX, std::chrono::seconds(0));
  if (!lock.held()) return;
  const std::vector<std::string> known = index->hashes();
  const std::set<std::string> kept(known.begin(), known.end());
  std::error_code error;
  std::vector<fs::path> stale;
  for (const auto& item : fs::directory_iterator(options.folder, error)) {
    const std::string name = item.path().filename().string();
    if (name.size() < kHashLength || !is_hash(std::string_view(name).substr(0, kHashLength))) continue;
    const std::string rest = name.substr(kHashLength);
    const bool temporary = rest.starts_with(cat(kSuffix, ".")) && rest.ends_with(".tmp");
    if (temporary || (rest == kSuffix && !kept.contains(name.substr(0, kHashLength))))
      stale.push_back(item.path());
  }
  for (const fs::path& path : stale) fs::remove(path, error);
}

void PrefixStore::Impl::forget(const std::vector<std::string>& hashes) {
  for (const std::string& hash : hashes) {
    if (!on_disk())
      memory.erase(hash);
    else if (is_hash(hash))
      ::unlink(entry_file(hash).c_str());
  }
}

void PrefixStore::Impl::drop(const std::string& hash) {
  if (!writable) return;
  try {
    forget(index->remove(hash));
  } catch (const DamagedIndex&) {
    throw;
  } catch (const Error&) {
    // It stays, and is refused the next time as well.
  }
}

std::string PrefixStore::Impl::bytes_of(const std::string& hash) const {
  if (on_disk()) {
    if (!is_hash(hash)) fail("the index names an entry '", printable(hash), "'");
    return read_whole(entry_file(hash));
  }
  const auto found = memory.find(hash);
  if (found == memory.end()) fail("it is not there any more");
  return found->second;
}

void PrefixStore::Impl::put(const PackedEntry& packed, const PrefixOwner& owner, PrefixIndex::Row row) {
  row.hash = packed.hash;
  row.bytes = packed.bytes.size();
  if (row.bytes > options.bytes)
    fail("it has ", byte_text(row.bytes), ", the store's budget is ", byte_text(options.bytes));
  bool placed = false;
  std::vector<std::string> evicted;
  if (!on_disk()) {
    evicted = index->add(owner.digest(), owner.json().dump(), row, options.bytes, [&] {
      memory[row.hash] = packed.bytes;
      placed = true;
    });
  } else {
    const FolderLock lock(options.folder, LOCK_SH, kLockPatience);
    if (!lock.held()) fail("the store ", lock.trouble());
    const std::string path = entry_file(row.hash);
    TemporaryFile temporary(path);
    write_whole(temporary.path(), packed.bytes, path);
    try {
      evicted = index->add(owner.digest(), owner.json().dump(), row, options.bytes, [&] {
        temporary.place();
        placed = true;
      });
    } catch (...) {
      if (placed) ::unlink(path.c_str());
      throw;
    }
  }
  forget(evicted);
  tally.evicted += static_cast<Index>(evicted.size());
  if (!placed) return;  // another process was first
  ++tally.saved;
  tally.bytes += row.bytes;
}

// -- Finding

std::vector<std::pair<std::int64_t, PrefixOwner>> PrefixStore::Impl::owners() const {
  std::vector<std::pair<std::int64_t, PrefixOwner>> all;
  try {
    for (const PrefixIndex::Owner& owner : index->owners())
      all.emplace_back(owner.id, PrefixOwner::parse(parse_json(owner.json, "the index"), "the index"));
  } catch (const Error& error) {
    throw DamagedIndex(error.what());
  }
  return all;
}

Match PrefixStore::Impl::deepest(std::int64_t owner, Index stride, std::span<const Token> prompt,
                                 const std::set<std::string>& passed) const {
  Match match;
  const std::vector<std::string> keys = boundary_keys(prompt, stride);
  for (std::size_t k = keys.size(); k-- > 0;) {
    const auto rest = prompt.subspan(k * static_cast<std::size_t>(stride));
    // Most entries that build on an earlier boundary lie before the deepest so far.
    for (PrefixIndex::Row& row : index->on(owner, keys[k], match.row.position)) {
      const auto same = static_cast<std::size_t>(
          std::mismatch(row.tokens.begin(), row.tokens.end(), rest.begin(), rest.end()).first -
          row.tokens.begin());
      match.shared = std::max(match.shared, static_cast<Index>(prompt.size() - rest.size() + same));
      if (row.position > match.row.position && same == row.tokens.size() && !passed.contains(row.hash))
        match.row = std::move(row);
    }
  }
  return match;
}

// Makes found.stream that of the entry. Returns why not if it cannot; such an entry is removed.
std::string PrefixStore::Impl::take(Found& found, const PrefixIndex::Row& row, const Request& request) {
  const std::span<const Token> prompt = request.prompt;
  std::vector<PrefixEntry> chain;
  std::vector<std::string> hashes;
  PrefixIndex::Row at = row;
  try {
    while (true) {
      hashes.push_back(at.hash);
      chain.push_back(unpack(bytes_of(at.hash), at.hash, name_of(at)));
      PrefixEntry& entry = chain.back();
      if (chain.size() > 1) keep_rows_only(entry);
      const std::string differences = entry.owner.differences(found.owner);
      if (!differences.empty()) fail(name_of(at), " is another's: ", differences);
      if (entry.position != at.position || entry.position > static_cast<Index>(prompt.size()) ||
          !std::equal(entry.tokens.begin(), entry.tokens.end(), prompt.begin() + entry.base))
        fail(name_of(at), " holds other tokens than the index says");
      if (entry.base == 0) break;
      at.hash = entry.parent;
      at.position = entry.base;
    }
    std::reverse(chain.begin(), chain.end());
    at = row;
    Snapshot snapshot = join(chain, name_of(row));
    snapshot.id = request.options.id;
    found.stream = Stream::restore(request.model, snapshot, request.options);
  } catch (const Error& error) {
    if (!dynamic_cast<const Unreadable*>(&error)) drop(at.hash);
    return cat("the entry at ", at.position, " cannot be used: ", error.what());
  }
  found.hit = row.position;
  for (PrefixEntry& entry : chain) found.notes.push_back(std::move(entry.notes));
  try {
    if (writable) index->touch(hashes);
  } catch (const DamagedIndex&) {
    throw;
  } catch (const Error&) {
    // It was used all the same; only the order of eviction is a little older.
  }
  return "";
}

// Returns why the prompt was not found whole.
std::string PrefixStore::Impl::search(Found& found, const Request& request) {
  const std::span<const Token> prompt = request.prompt;
  if (!index) fail(no_index);
  const auto all = owners();
  const auto mine = std::find_if(all.begin(), all.end(),
                                 [&](const auto& o) { return o.second.differences(found.owner).empty(); });
  std::string troubles;
  std::set<std::string> passed;
  while (mine != all.end()) {
    const Match match = deepest(mine->first, found.owner.stride, prompt, passed);
    found.shared = std::max(found.shared, match.shared);
    if (match.row.hash.empty()) break;
    const std::string trouble = take(found, match.row, request);
    if (trouble.empty()) break;
    troubles += (troubles.empty() ? "" : "; ") + trouble;
    passed.insert(match.row.hash);
  }
  if (found.hit == static_cast<Index>(prompt.size())) return "";
  return troubles.empty() ? reason(found, prompt, all) : troubles;
}

std::string PrefixStore::Impl::reason(const Found& found, std::span<const Token> prompt,
                                      const std::vector<std::pair<std::int64_t, PrefixOwner>>& owners) const {
  if (found.hit > 0)
    return cat("stored prompts share the first ", found.shared, " of ", prompt.size(),
               " tokens, the last entry within them is at ", found.hit);
  if (owners.empty()) return "the store is empty";
  // Whoever has most of this prompt tells what stands in the way.
  Index most = 0;
  std::string differences;
  for (const auto& [id, owner] : owners) {
    if (owner.differences(found.owner).empty()) continue;
    const Match match = deepest(id, owner.stride, prompt, {});
    if (match.row.position <= most) continue;
    most = match.row.position;
    differences = owner.differences(found.owner);
  }
  if (most > 0) return differences;
  if (found.shared > 0)
    return cat("stored prompts share the first ", found.shared, " of ", prompt.size(),
               " tokens, no entry lies within them");
  return "no stored prompt begins like this one";
}

// -- Saving

void PrefixStore::Impl::save(const PrefixOwner& owner, const Stream& stream, const std::string& notes) {
  const Index position = stream.position();
  if (!index) fail(no_index);
  if (!writable) fail("the folder '", options.folder, "' is read-only");
  if (stream.logits().empty()) fail("the stream has no logits there");
  if (stream.history().begin() > 0) fail("the stream does not keep its first tokens");
  const std::vector<std::string> keys = boundary_keys(stream.tokens(), owner.stride);
  const std::string digest = owner.digest(), key = key_of(stream.tokens(), keys, owner.stride);
  if (const PrefixIndex::Row there = index->find(digest, key); !there.hash.empty()) {
    index->touch({there.hash});
    return;
  }
  Index begin = base(owner, position);
  const auto parent_at = [&](Index boundary) {
    return index->find(digest, keys[static_cast<std::size_t>(boundary / owner.stride)]).hash;
  };
  std::string parent;
  while (begin > 0 && (parent = parent_at(begin)).empty()) {
    if (!owner.notes.empty()) fail("the entry at ", begin, " it builds on is not there");  // no notes before
    begin -= owner.stride;
  }
  const auto tokens = stream.tokens().subspan(static_cast<std::size_t>(begin));
  PrefixIndex::Row row{"",       parent,
                       key,      keys[static_cast<std::size_t>(begin / owner.stride)],
                       position, {tokens.begin(), tokens.end()},
                       0};
  Snapshot snapshot = stream.snapshot_since(begin);
  assert(snapshot.model_identity == owner.model && snapshot.arithmetic == owner.arithmetic &&
         snapshot.edits == owner.edits);
  // Without edits a sampled token is a token like any other; with them its phase may matter.
  if (!snapshot.sampled.empty() && !snapshot.edits.empty()) return;
  PrefixEntry entry{owner,      snapshot.model_name, row.parent, begin, position,
                    row.tokens, snapshot.logits,     notes,      {}};
  entry.states = std::move(snapshot.states);
  writing = std::async(std::launch::async, [this, entry = std::move(entry), row = std::move(row)] {
    try {
      put(pack(entry), entry.owner, row);
    } catch (const std::exception& error) {
      not_saved(row.position, error);
    }
  });
}

void PrefixStore::Impl::not_saved(Index position, const std::exception& error) {
  damaged = damaged || dynamic_cast<const DamagedIndex*>(&error);
  if (tally.not_saved.empty()) tally.not_saved = cat("the entry at ", position, ": ", error.what());
}

// -- The class

PrefixStore::PrefixStore(PrefixStoreOptions options) : impl_(std::make_unique<Impl>()) {
  impl_->options = std::move(options);
  impl_->open();
}
PrefixStore::~PrefixStore() {
  if (impl_) impl_->wait();
}
PrefixStore::PrefixStore(PrefixStore&&) noexcept = default;

Index PrefixStore::Found::next_save(Index position) const {
  const auto next = std::upper_bound(saves.begin(), saves.end(), position);
  return next != saves.end() ? *next : (position / owner.stride + 1) * owner.stride;
}

PrefixStore::Found PrefixStore::find(std::shared_ptr<const Model> model, const StreamOptions& options,
                                     std::span<const Token> prompt, const std::string& notes) {
  impl_->wait();
  Stream stream(model, options);
  PrefixOwner owner = owner_of(stream, impl_->options.stride, notes);
  Found found{std::move(stream), std::move(owner), 0, 0, {}, {}, {}};
  try {
    found.miss = impl_->search(found, {std::move(model), options, prompt});
  } catch (const Error& error) {
    found.miss = error.what();
    if (dynamic_cast<const DamagedIndex*>(&error)) impl_->mend();
  }
  if (!impl_->news.empty()) found.miss = std::exchange(impl_->news, {});
  found.saves =
      save_positions(found.hit, found.shared, static_cast<Index>(prompt.size()), found.owner.stride);
  return found;
}

void PrefixStore::save(const PrefixOwner& owner, const Stream& stream, const std::string& notes) {
  if (stream.position() == 0) return;
  impl_->wait();
  try {
    impl_->save(owner, stream, notes);
  } catch (const std::exception& error) {
    impl_->not_saved(stream.position(), error);
  }
}

const PrefixStore::Tally& PrefixStore::tally() const {
  impl_->wait();
  return impl_->tally;
}
std::uint64_t PrefixStore::bytes() const {
  impl_->wait();
  try {
    return impl_->index ? impl_->index->bytes() : 0;
  } catch (const Error&) {
    return 0;
  }
}

}  // namespace plait
