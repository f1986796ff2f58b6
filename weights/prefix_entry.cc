#include "weights/prefix_entry.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "weights/json_text.h"
#include "weights/trailer.h"

namespace plait {
namespace {

static_assert(std::endian::native == std::endian::little, "entries are written as they lie in memory");

constexpr char kMagic[8] = {'p', 'l', 'a', 'i', 't', 'p', 'f', 'x'};
constexpr std::int64_t kEntryFormat = 1;
constexpr std::size_t kPreamble = sizeof kMagic + sizeof(std::uint64_t);  // magic, length of the header

// -- JSON that comes from a file

const Json& member(const Json& json, const char* key, const std::string& what) {
  if (!json.is_object() || !json.contains(key)) fail(what, " is damaged: its header has no '", key, "'");
  return json.at(key);
}

Index integer(const Json& json, const char* key, const std::string& what) {
  const Json& value = member(json, key, what);
  if (!value.is_number_integer() || value < 0 || value > kMostTokens)
    fail(what, " is damaged: '", key, "' in its header is no count");
  return static_cast<Index>(value.get<std::int64_t>());
}

std::string text(const Json& json, const char* key, const std::string& what) {
  const Json& value = member(json, key, what);
  if (!value.is_string()) fail(what, " is damaged: '", key, "' in its header is no text");
  return value.get<std::string>();
}

const Json& list(const Json& json, const char* key, const std::string& what) {
  const Json& value = member(json, key, what);
  if (!value.is_array()) fail(what, " is damaged: '", key, "' in its header is no list");
  return value;
}

// Pairs [begin, end), ascending and disjoint, within [0, end).
std::vector<Log::Range> ranges(const Json& json, const char* key, Index end, const std::string& what) {
  std::vector<Log::Range> all;
  Index last = 0;
  for (const Json& pair : list(json, key, what)) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_number_integer() || !pair[1].is_number_integer())
      fail(what, " is damaged: '", key, "' in its header is no list of ranges");
    if (pair[0] < last || pair[1] <= pair[0] || pair[1] > end)
      fail(what, " is damaged: '", key, "' in its header has the range ", pair.dump(),
           " out of order or outside [0, ", end, ")");
    all.push_back({pair[0].get<Index>(), pair[1].get<Index>()});
    last = all.back().end;
  }
  return all;
}

Json flat(const std::vector<Log::Range>& ranges) {
  Json all = Json::array();
  for (const Log::Range& range : ranges) all.push_back({range.begin, range.end});
  return all;
}

// -- Writing

void put(std::string& bytes, const void* data, std::size_t size) {
  bytes.append(static_cast<const char*>(data), size);
}

Index rows_of(const Log::Piece& piece) { return piece.range.end - piece.range.begin; }

// Bytes of one row of a log, 0 where the item holds none.
std::size_t row_bytes(const State::Image::Item& item) {
  for (const Log::Piece& piece : item.pieces)
    if (!piece.rows.empty()) return piece.rows.size() / static_cast<std::size_t>(rows_of(piece));
  return 0;
}

// Only logs have an end, rows that exist and pieces. An empty log looks like an empty value and may be stored
// as one.
bool is_log(const State::Image::Item& item) { return item.log_end > 0 || !item.present.empty(); }

Json header_of(const State::Image::Item& item) {
  if (!is_log(item)) return {{"name", item.name}, {"bytes", item.bytes.size()}};
  std::vector<Log::Range> pieces;
  for (const Log::Piece& piece : item.pieces) pieces.push_back(piece.range);
  return {{"name", item.name},
          {"log_end", item.log_end},
          {"present", flat(item.present)},
          {"pieces", flat(pieces)},
          {"row", row_bytes(item)}};
}

Json header_of(const PrefixEntry& entry) {
  Json states = Json::array();
  for (const Snapshot::NodeState& state : entry.states) {
    Json items = Json::array();
    for (const State::Image::Item& item : state.image.items) items.push_back(header_of(item));
    states.push_back({{"node", state.node}, {"position", state.image.position}, {"items", std::move(items)}});
  }
  return {{"format", kEntryFormat},        {"owner", entry.owner.json()}, {"model_name", entry.model_name},
          {"parent", entry.parent},        {"base", entry.base},          {"position", entry.position},
          {"logits", entry.logits.size()}, {"notes", entry.notes.size()}, {"states", std::move(states)}};
}

// -- Reading

class Reader {
 public:
  Reader(std::string_view bytes, const std::string& what) : left_(bytes), what_(what) {}

  std::string_view take(std::uint64_t size) {
    if (size > left_.size()) fail(what_, " is damaged: it ends before what its header announces");
    const std::string_view taken = left_.substr(0, static_cast<std::size_t>(size));
    left_.remove_prefix(taken.size());
    return taken;
  }
  // `count` elements of `size` bytes.
  std::string_view take(Index count, std::size_t size) {
    if (size > 0 && static_cast<std::uint64_t>(count) > left_.size() / size)
      fail(what_, " is damaged: it ends before what its header announces");
    return take(static_cast<std::uint64_t>(count) * size);
  }
  template <class T>
  std::vector<T> values(Index count) {
    const std::string_view taken = take(count, sizeof(T));
    std::vector<T> all(static_cast<std::size_t>(count));
    if (!all.empty()) std::memcpy(all.data(), taken.data(), taken.size());
    return all;
  }
  bool done() const { return left_.empty(); }

 private:
  std::string_view left_;
  const std::string& what_;
};

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}

State::Image::Item read_item(const Json& json, Index base, Reader& reader, const std::string& what) {
  State::Image::Item item;
  item.name = text(json, "name", what);
  if (!json.contains("log_end")) {
    item.bytes = bytes_of(reader.take(static_cast<std::uint64_t>(integer(json, "bytes", what))));
    return item;
  }
  item.log_end = integer(json, "log_end", what);
  item.present = ranges(json, "present", item.log_end, what);
  const auto row = static_cast<std::size_t>(integer(json, "row", what));
  for (const Log::Range& range : ranges(json, "pieces", item.log_end, what)) {
    if (range.begin < base && range.end > base)
      fail(what, " is damaged: a piece [", range.begin, ", ", range.end, ") lies across its base ", base);
    Log::Piece piece{range, {}};
    if (range.begin >= base) piece.rows = bytes_of(reader.take(range.end - range.begin, row));
    item.pieces.push_back(std::move(piece));
  }
  return item;
}

Snapshot::NodeState read_state(const Json& json, Index base, Reader& reader, const std::string& what) {
  Snapshot::NodeState state;
  state.node = text(json, "node", what);
  state.image.position = integer(json, "position", what);
  for (const Json& item : list(json, "items", what))
    state.image.items.push_back(read_item(item, base, reader, what));
  return state;
}

// The bytes before the trailer.
std::string_view checked(std::string_view bytes, const std::string& hash, const std::string& what) {
  Trailer found;
  if (bytes.size() < kPreamble + sizeof found || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0)
    fail(what, " is no entry of a prefix store, or was cut short");
  const std::string_view contents = bytes.substr(0, bytes.size() - sizeof found);
  std::memcpy(&found, bytes.data() + contents.size(), sizeof found);
  const std::string sha256 = plait::sha256(contents);
  const Trailer want = make_trailer(contents.size(), sha256);
  if (std::memcmp(&found, &want, sizeof found) != 0)
    fail(what, " is damaged: its contents disagree with its trailer");
  if (!hash.empty() && hash != sha256)
    fail(what, " is another entry: its SHA-256 is ", sha256, ", expected ", hash);
  return contents;
}

void check_positions(const PrefixEntry& entry, const std::string& what) {
  if (entry.base >= entry.position || entry.parent.empty() != (entry.base == 0))
    fail(what, " is damaged: it goes from ", entry.base, " to ", entry.position, " and builds on '",
         printable(entry.parent), "'");
}

// -- Joining

// Fills a piece of `item` that has no rows from the same item of earlier entries.
void fill(Log::Piece& piece, const std::vector<const State::Image::Item*>& earlier, std::size_t row,
          const std::string& what) {
  Index at = piece.range.begin;
  for (const State::Image::Item* item : earlier)
    for (const Log::Piece& held : item->pieces) {
      if (held.rows.empty() || held.range.begin > at || held.range.end <= at) continue;
      const Index end = std::min(held.range.end, piece.range.end);
      if (at >= end) continue;
      if (held.rows.size() != static_cast<std::size_t>(rows_of(held)) * row)
        fail(what, ": rows of log '", item->name, "' differ in size between its entries");
      const std::byte* rows = held.rows.data() + static_cast<std::size_t>(at - held.range.begin) * row;
      piece.rows.insert(piece.rows.end(), rows, rows + static_cast<std::size_t>(end - at) * row);
      at = end;
    }
  if (at != piece.range.end)
    fail(what, ": log '", earlier.empty() ? "" : earlier.front()->name, "' lacks the rows [", at, ", ",
         piece.range.end, ")");
}

std::size_t row_bytes(const std::vector<const State::Image::Item*>& items) {
  for (const State::Image::Item* item : items)
    if (const std::size_t row = row_bytes(*item)) return row;
  return 0;
}

void check_chain(const std::vector<PrefixEntry>& chain, const std::string& what) {
  Index position = 0;
  for (const PrefixEntry& entry : chain) {
    if (entry.base != position)
      fail(what, ": an entry builds on position ", entry.base, ", the one before ends at ", position);
    position = entry.position;
    const std::string differences = entry.owner.differences(chain.front().owner);
    if (!differences.empty()) fail(what, ": its entries do not belong together, ", differences);
    const auto same_node = [](const auto& a, const auto& b) { return a.node == b.node; };
    if (!std::equal(entry.states.begin(), entry.states.end(), chain.front().states.begin(),
                    chain.front().states.end(), same_node))
      fail(what, ": its entries have states of different nodes");
  }
}

// A log restores pieces that have a gap between them.
void merge_neighbours(std::vector<Log::Piece>& pieces) {
  std::vector<Log::Piece> merged;
  for (Log::Piece& piece : pieces) {
    if (!merged.empty() && merged.back().range.end == piece.range.begin) {
      merged.back().range.end = piece.range.end;
      merged.back().rows.insert(merged.back().rows.end(), piece.rows.begin(), piece.rows.end());
    } else {
      merged.push_back(std::move(piece));
    }
  }
  pieces = std::move(merged);
}

// Gives the pieces of a log all their rows.
void complete(State::Image::Item& item, std::size_t node, const std::vector<PrefixEntry>& chain,
              const std::string& what) {
  std::vector<const State::Image::Item*> items;
  for (const PrefixEntry& entry : chain)
    for (const State::Image::Item& other : entry.states[node].image.items)
      if (other.name == item.name) items.push_back(&other);
  const std::size_t row = row_bytes(items);
  for (Log::Piece& piece : item.pieces)
    if (piece.rows.empty()) fill(piece, items, row, what);
  merge_neighbours(item.pieces);
}

}  // namespace

Json PrefixOwner::json() const {
  return {
      {"model", model}, {"arithmetic", arithmetic}, {"edits", edits}, {"stride", stride}, {"notes", notes}};
}

PrefixOwner PrefixOwner::parse(const Json& json, const std::string& what) {
  PrefixOwner owner;
  owner.model = text(json, "model", what);
  owner.arithmetic = member(json, "arithmetic", what);
  owner.edits = member(json, "edits", what);
  owner.stride = integer(json, "stride", what);
  owner.notes = text(json, "notes", what);
  if (owner.stride == 0) fail(what, " is damaged: its stride is 0");
  return owner;
}

std::string PrefixOwner::digest() const { return sha256(json().dump()); }

std::string PrefixOwner::differences(const PrefixOwner& other) const {
  std::string all;
  const auto note = [&](bool differs, const char* text) {
    if (differs) all += (all.empty() ? "" : ", ") + std::string(text);
  };
  note(model != other.model, "model digest differs");
  note(arithmetic != other.arithmetic, "numerics differ");
  note(edits != other.edits, "edits differ");
  note(stride != other.stride, "stride differs");
  note(notes != other.notes, "what is kept with the tokens differs");
  return all;
}

PackedEntry pack(const PrefixEntry& entry) {
  PackedEntry packed;
  std::string& bytes = packed.bytes;
  const std::string header = header_of(entry).dump();
  const std::uint64_t length = header.size();
  put(bytes, kMagic, sizeof kMagic);
  put(bytes, &length, sizeof length);
  bytes += header;
  put(bytes, entry.tokens.data(), entry.tokens.size() * sizeof(Token));
  put(bytes, entry.logits.data(), entry.logits.size() * sizeof(float));
  bytes += entry.notes;
  for (const Snapshot::NodeState& state : entry.states)
    for (const State::Image::Item& item : state.image.items) {
      put(bytes, item.bytes.data(), item.bytes.size());
      for (const Log::Piece& piece : item.pieces) put(bytes, piece.rows.data(), piece.rows.size());
    }
  packed.hash = sha256(bytes);
  const Trailer trailer = make_trailer(bytes.size(), packed.hash);
  put(bytes, &trailer, sizeof trailer);
  return packed;
}

PrefixEntry unpack(std::string_view bytes, const std::string& hash, const std::string& what) {
  const std::string_view contents = checked(bytes, hash, what);
  Reader reader(contents, what);
  reader.take(sizeof kMagic);
  std::uint64_t length = 0;
  std::memcpy(&length, reader.take(sizeof length).data(), sizeof length);
  const Json header = parse_json(reader.take(length), cat("the header of ", what));
  const Index format = integer(header, "format", what);
  if (format != kEntryFormat)
    fail(what, " has format ", format, ", this program reads format ", kEntryFormat);
  PrefixEntry entry;
  entry.owner = PrefixOwner::parse(member(header, "owner", what), what);
  entry.model_name = text(header, "model_name", what);
  entry.parent = text(header, "parent", what);
  entry.base = integer(header, "base", what);
  entry.position = integer(header, "position", what);
  check_positions(entry, what);
  entry.tokens = reader.values<Token>(entry.position - entry.base);
  entry.logits = reader.values<float>(integer(header, "logits", what));
  entry.notes = reader.take(static_cast<std::uint64_t>(integer(header, "notes", what)));
  for (const Json& state : list(header, "states", what))
    entry.states.push_back(read_state(state, entry.base, reader, what));
  if (!reader.done()) fail(what, " is damaged: it holds more than its header announces");
  return entry;
}

void keep_rows_only(PrefixEntry& entry) {
  entry.logits = {};
  for (Snapshot::NodeState& state : entry.states)
    for (State::Image::Item& item : state.image.items) item.bytes = {};
}

Snapshot join(const std::vector<PrefixEntry>& chain, const std::string& what) {
  check_chain(chain, what);
  const PrefixEntry& last = chain.back();
  Snapshot snapshot;
  snapshot.model_name = last.model_name;
  snapshot.model_identity = last.owner.model;
  snapshot.arithmetic = last.owner.arithmetic;
  snapshot.edits = last.owner.edits;
  snapshot.logits = last.logits;
  snapshot.states = last.states;
  for (const PrefixEntry& entry : chain)
    snapshot.tokens.insert(snapshot.tokens.end(), entry.tokens.begin(), entry.tokens.end());
  for (std::size_t n = 0; n < last.states.size(); ++n)
    for (State::Image::Item& item : snapshot.states[n].image.items) complete(item, n, chain, what);
  return snapshot;
}

}  // namespace plait
