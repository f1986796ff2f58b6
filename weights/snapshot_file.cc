#include "weights/snapshot_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "weights/h5.h"
#include "weights/json_text.h"
#include "weights/probe.h"
#include "weights/resources.h"
#include "weights/temporary_file.h"
#include "weights/trailer.h"

namespace plait {
namespace {

constexpr std::int64_t kSnapshotFormat = 1;
constexpr std::array<const char*, 4> kFieldKinds = {"anchor", "open", "running", "log"};  // by Field::Kind
constexpr std::array<const char*, 2> kOrders = {"rows", "columns"};                       // by Field::Order

// -- Trailer

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags)
      : fd_(::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK)) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  // Negative if this is no open regular file.
  std::int64_t size() const {
    struct stat stats {};
    return fd_ >= 0 && ::fstat(fd_, &stats) == 0 && S_ISREG(stats.st_mode) ? std::int64_t{stats.st_size} : -1;
  }

 private:
  int fd_;
};

bool read_at(int fd, void* to, std::size_t bytes, std::uint64_t offset) {
  auto* place = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = ::pread(fd, place, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    place += got;
    bytes -= static_cast<std::size_t>(got);
    offset += static_cast<std::uint64_t>(got);
  }
  return true;
}

Trailer trailer_of(int fd, std::uint64_t length, const std::string& path) {
  Digest digest;
  std::vector<char> buffer(std::size_t{1} << 20);
  for (std::uint64_t at = 0; at < length;) {
    const std::size_t step = std::min<std::uint64_t>(buffer.size(), length - at);
    if (!read_at(fd, buffer.data(), step, at)) fail("cannot read file '", path, "': ", std::strerror(errno));
    digest.add(buffer.data(), step);
    at += step;
  }
  return make_trailer(length, digest.hex());
}

void check_trailer(const std::string& path) {
  const Descriptor file(path, O_RDONLY);
  if (file.get() < 0) fail("cannot open file '", path, "': ", std::strerror(errno));
  const std::int64_t size = file.size();
  if (size < 0) fail("cannot open file '", path, "': it is not a regular file");
  Trailer found;
  const Trailer empty;
  const auto whole = static_cast<std::uint64_t>(size);
  if (whole < sizeof found || !read_at(file.get(), &found, sizeof found, whole - sizeof found) ||
      std::memcmp(found.magic, empty.magic, sizeof found.magic) != 0)
    fail("file '", path,
         "' is not a plait snapshot, or was cut short: it does not end in a snapshot's trailer");
  if (found.version != empty.version)
    fail("file '", path, "' has snapshot trailer version ", found.version, ", this program reads ",
         empty.version);
  if (found.length != whole - sizeof found)
    fail("file '", path, "' is damaged: it has ", whole - sizeof found,
         " bytes before its trailer, which says ", found.length);
  const Trailer want = trailer_of(file.get(), found.length, path);
  if (std::memcmp(&found, &want, sizeof found) != 0)
    fail("file '", path, "' is damaged: its contents disagree with the SHA-256 in its trailer");
}

void append_trailer(const std::string& path, const std::string& shown) {
  const Descriptor file(path, O_RDWR);
  const std::int64_t size = file.size();
  if (size < 0) fail("cannot write file '", shown, "': ", std::strerror(errno));
  const Trailer trailer = trailer_of(file.get(), static_cast<std::uint64_t>(size), shown);
  if (::pwrite(file.get(), &trailer, sizeof trailer, size) != static_cast<ssize_t>(sizeof trailer))
    fail("cannot write file '", shown, "': ", std::strerror(errno));
}

// -- Writing

h5::Element element_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return h5::Element::f32;
    case DType::f64:
      return h5::Element::f64;
    case DType::bf16:
      return h5::Element::bf16;
    case DType::f16:
      return h5::Element::f16;
    default:
      fail("state fields of ", name_of(dtype), " cannot be saved");
  }
}

std::vector<std::int64_t> flatten(const std::vector<Log::Range>& ranges) {
  std::vector<std::int64_t> all;
  for (const Log::Range& range : ranges) all.insert(all.end(), {range.begin, range.end});
  return all;
}

// The rows a field's dataset holds: one for the whole values of anchors and running fields.
Shape stored_shape(const Field& field, std::size_t bytes) {
  if (field.kind == Field::Kind::anchor || field.kind == Field::Kind::running) return field.shape;
  const std::size_t row = static_cast<std::size_t>(field.width()) * bytes_of(field.dtype);
  return {static_cast<Index>(row ? bytes / row : 0), field.width()};
}

void write_field(h5::File& file, h5::Group& group, const Field& field, const State::Image::Item& item) {
  std::vector<std::byte> rows;
  std::vector<Log::Range> pieces;
  for (const Log::Piece& piece : item.pieces) {
    rows.insert(rows.end(), piece.rows.begin(), piece.rows.end());
    pieces.push_back(piece.range);
  }
  const bool log = field.kind == Field::Kind::log;
  const std::vector<std::byte>& bytes = log ? rows : item.bytes;
  const Shape shape = stored_shape(field, bytes.size());
  if (static_cast<std::size_t>(element_count(shape)) * bytes_of(field.dtype) != bytes.size())
    fail("field '", field.name, "' has ", bytes.size(), " bytes, which is not ", to_string(shape), " of ",
         name_of(field.dtype));
  file.reserve(bytes.size() + 16 * (pieces.size() + item.present.size()));
  h5::Dataset dataset = file.write(group, field.name, element_of(field.dtype), shape, bytes.data()).dataset;
  dataset.set("kind", kFieldKinds[static_cast<std::size_t>(field.kind)]);
  dataset.set("order", kOrders[static_cast<std::size_t>(field.order)]);
  dataset.set("shape", std::vector<std::int64_t>(field.shape.begin(), field.shape.end()));
  dataset.set("grid", std::int64_t{field.grid});
  dataset.set("window", std::int64_t{field.window});
  dataset.set("sinks", std::int64_t{field.sinks});
  if (!log) return;
  dataset.set("log_end", std::int64_t{item.log_end});
  dataset.set("present", flatten(item.present));
  dataset.set("pieces", flatten(pieces));
}

void write_node(h5::File& file, h5::Group& nodes, const Snapshot::NodeState& state, std::int64_t index) {
  if (state.fields.size() != state.image.items.size())
    fail("node '", state.node, "' has ", state.fields.size(), " fields, its state has ",
         state.image.items.size());
  file.reserve(0);
  h5::Group group = nodes.create_group(state.node);
  group.set("index", index);
  group.set("position", std::int64_t{state.image.position});
  std::string order;  // fields in the order the layer declares them
  for (std::size_t i = 0; i < state.fields.size(); ++i) {
    write_field(file, group, state.fields[i], state.image.items[i]);
    order += (i ? "\n" : "") + state.fields[i].name;
  }
  group.set("fields", order);
}

void write_nodes(h5::File& file, h5::Group& group, const std::vector<Snapshot::NodeState>& states) {
  std::int64_t index = 0;
  for (const Snapshot::NodeState& state : states) write_node(file, group, state, index++);
}

void write_boundaries(h5::File& file, h5::Group& root, const Snapshot& snapshot) {
  file.reserve(0);
  h5::Group boundaries = root.create_group("boundaries");
  boundaries.set("stride", std::int64_t{snapshot.stride});
  for (const Snapshot::Boundary& boundary : snapshot.boundaries) {
    file.reserve(0);
    h5::Group group = boundaries.create_group(std::to_string(boundary.position));
    group.set("position", std::int64_t{boundary.position});
    write_nodes(file, group, boundary.states);
  }
}

void write_root(h5::File& file, h5::Group& root, const Snapshot& snapshot) {
  const std::string arithmetic = snapshot.arithmetic.dump(), edits = snapshot.edits.dump(),
                    sampler = snapshot.sampler.dump();
  file.reserve(arithmetic.size() + edits.size() + sampler.size() + snapshot.model_name.size());
  root.set("plait_snapshot", kSnapshotFormat);
  root.set("created_by", "plait " PLAIT_VERSION);
  root.set("model_name", snapshot.model_name);
  root.set("model_identity", snapshot.model_identity);
  root.set("arithmetic", arithmetic);
  root.set("edits", edits);
  root.set("sampler", sampler);
  root.set("id", static_cast<std::int64_t>(snapshot.id));
  root.set("position", std::int64_t{snapshot.position()});
  root.set("forgotten", std::int64_t{snapshot.forgotten});
  root.set("forgotten_sha256", snapshot.forgotten_digest);
  const auto count = [](std::size_t n) { return static_cast<Index>(n); };
  file.write(root, "tokens", h5::Element::i32, {count(snapshot.tokens.size())}, snapshot.tokens.data());
  const std::vector<std::int64_t> sampled = flatten(snapshot.sampled);
  file.write(root, "sampled", h5::Element::i64, {count(snapshot.sampled.size()), 2}, sampled.data());
  file.write(root, "logits", h5::Element::f32, {count(snapshot.logits.size())}, snapshot.logits.data());
}

// -- Reading

std::vector<Log::Range> ranges(const std::vector<std::int64_t>& flat, std::int64_t end,
                               const std::string& what) {
  if (flat.size() % 2 != 0) fail(what, " has an odd number of bounds");
  std::vector<Log::Range> all;
  std::int64_t last = 0;
  for (std::size_t i = 0; i < flat.size(); i += 2) {
    if (flat[i] < last || flat[i + 1] <= flat[i] || flat[i + 1] > end)
      fail(what, " has the range [", flat[i], ", ", flat[i + 1], ") out of order or outside [0, ", end, ")");
    all.push_back({static_cast<Index>(flat[i]), static_cast<Index>(flat[i + 1])});
    last = flat[i + 1];
  }
  return all;
}

template <class Names>
std::size_t one_of(const h5::Object& object, const std::string& attribute, const Names& names) {
  const std::string text = object.text(attribute);
  const auto found = std::find(names.begin(), names.end(), text);
  if (found == names.end())
    fail(object.where(), ": attribute '", attribute, "' has the unknown value '", printable(text), "'");
  return static_cast<std::size_t>(found - names.begin());
}

class Reader {
 public:
  // rehearse: the values of large datasets are read and dropped.
  enum class Purpose { rehearse, load };
  Reader(const std::string& path, Purpose purpose, h5::Beat beat)
      : path_(path), purpose_(purpose), beat_(std::move(beat)), file_(h5::File::open(path)) {}

  Snapshot read() {
    const h5::Group root = file_.root();
    const std::string where = cat("file '", path_, "'");
    if (!root.has("plait_snapshot"))
      fail(where, " is not a plait snapshot: it has no attribute 'plait_snapshot'");
    const std::int64_t format = root.integer("plait_snapshot");
    if (format != kSnapshotFormat)
      fail(where, " has plait_snapshot ", format, ", this program reads plait_snapshot ", kSnapshotFormat);
    require_memory(2 * file_.size(),
                   where);  // no dataset is compressed: data are at most the file, twice on restoring
    Snapshot snapshot;
    snapshot.model_name = root.text("model_name");
    snapshot.model_identity = root.text("model_identity");
    for (const auto& [name, json] : {std::pair{"arithmetic", &snapshot.arithmetic},
                                     {"edits", &snapshot.edits},
                                     {"sampler", &snapshot.sampler}})
      *json = parse_json(root.text(name), cat("attribute '", name, "' of ", where));
    snapshot.id = static_cast<std::uint64_t>(root.integer("id"));
    read_sequence(root, snapshot);
    snapshot.states = read_nodes(root.group("nodes"));
    const std::vector<std::string> groups = root.names();
    if (std::find(groups.begin(), groups.end(), "boundaries") != groups.end())  // absent in older files
      read_boundaries(root.group("boundaries"), snapshot);
    return snapshot;
  }

 private:
  void read_sequence(const h5::Group& root, Snapshot& snapshot) {
    const std::int64_t position = root.integer("position");
    snapshot.tokens = values<Token>(root.dataset("tokens"), h5::Element::i32);
    snapshot.logits = values<float>(root.dataset("logits"), h5::Element::f32);
    const h5::Dataset sampled = root.dataset("sampled");
    const auto bounds = values<std::int64_t>(sampled, h5::Element::i64);
    if (root.has("forgotten")) read_forgotten(root, snapshot);  // absent in older files
    if (purpose_ == Purpose::rehearse) return;
    if (position != snapshot.position())
      fail("file '", path_, "' has position ", position, ", but ", snapshot.position(), " tokens");
    snapshot.sampled = ranges(bounds, position, sampled.where());
  }

  void read_forgotten(const h5::Group& root, Snapshot& snapshot) {
    const std::int64_t forgotten = root.integer("forgotten");
    if (forgotten < 0 || forgotten > kMostTokens || forgotten % History::kBlock != 0)
      fail("file '", path_, "' has forgotten ", forgotten, " tokens, which is no multiple of ",
           History::kBlock);
    snapshot.forgotten = static_cast<Index>(forgotten);
    snapshot.forgotten_digest = root.text("forgotten_sha256");
    const std::size_t length = snapshot.forgotten_digest.size();
    if (length != (forgotten > 0 ? 64u : 0u))
      fail("file '", path_, "': forgotten_sha256 has ", length, " characters");
  }

  std::vector<Snapshot::NodeState> read_nodes(const h5::Group& nodes) {
    std::vector<std::pair<std::int64_t, Snapshot::NodeState>> states;
    for (const std::string& name : nodes.names()) {
      const h5::Group group = nodes.group(name);
      states.emplace_back(group.integer("index"), read_node(group, name));
    }
    std::stable_sort(states.begin(), states.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<Snapshot::NodeState> sorted;
    for (auto& [index, state] : states) sorted.push_back(std::move(state));
    return sorted;
  }

  void read_boundaries(const h5::Group& boundaries, Snapshot& snapshot) {
    snapshot.stride = static_cast<Index>(boundaries.integer("stride"));
    for (const std::string& name : boundaries.names()) {
      const h5::Group group = boundaries.group(name);
      snapshot.boundaries.push_back({static_cast<Index>(group.integer("position")), read_nodes(group)});
    }
    std::stable_sort(snapshot.boundaries.begin(), snapshot.boundaries.end(),
                     [](const auto& a, const auto& b) { return a.position < b.position; });
  }

  Snapshot::NodeState read_node(const h5::Group& group, const std::string& name) {
    Snapshot::NodeState state;
    state.node = name;
    state.image.position = group.integer("position");
    std::string fields = group.text("fields");
    const auto lines = fields.empty() ? 0 : std::count(fields.begin(), fields.end(), '\n') + 1;
    if (static_cast<std::size_t>(lines) != group.names().size())
      fail(group.where(), ": names ", lines, " fields, but holds ", group.names().size());
    for (std::size_t at = 0; at < fields.size();) {
      const std::size_t end = std::min(fields.find('\n', at), fields.size());
      read_field(group.dataset(fields.substr(at, end - at)), fields.substr(at, end - at), state);
      at = end + 1;
    }
    return state;
  }

  void read_field(const h5::Dataset& dataset, const std::string& name, Snapshot::NodeState& state) {
    Field field;
    field.name = name;
    field.kind = static_cast<Field::Kind>(one_of(dataset, "kind", kFieldKinds));
    field.order = static_cast<Field::Order>(one_of(dataset, "order", kOrders));
    const auto shape = dataset.integers("shape");
    field.shape.assign(shape.begin(), shape.end());
    field.grid = dataset.integer("grid");
    field.window = dataset.integer("window");
    field.sinks = dataset.integer("sinks");
    field.dtype = dtype_of(dataset);
    State::Image::Item item;
    item.name = name;
    std::vector<std::byte> bytes = values<std::byte>(dataset, dataset.element());
    if (field.kind == Field::Kind::log)
      read_log(dataset, bytes, item);
    else
      item.bytes = std::move(bytes);
    state.fields.push_back(std::move(field));
    state.image.items.push_back(std::move(item));
  }

  void read_log(const h5::Dataset& dataset, const std::vector<std::byte>& bytes, State::Image::Item& item) {
    item.log_end = dataset.integer("log_end");
    if (item.log_end < 0) fail(dataset.where(), ": ends at position ", item.log_end);
    item.present = ranges(dataset.integers("present"), item.log_end, dataset.where());
    const auto pieces = ranges(dataset.integers("pieces"), item.log_end, dataset.where());
    if (purpose_ == Purpose::rehearse) return;
    if (dataset.shape().size() != 2)
      fail(dataset.where(), ": must be rows, found ", to_string(dataset.shape()));
    Index rows = 0;
    for (const Log::Range& range : pieces) rows += range.end - range.begin;
    if (rows != dataset.shape()[0])
      fail(dataset.where(), ": holds ", dataset.shape()[0], " rows, its pieces are ", rows);
    const std::size_t row = rows ? bytes.size() / static_cast<std::size_t>(rows) : 0;
    const std::byte* at = bytes.data();
    for (const Log::Range& range : pieces) {
      const std::size_t size = row * static_cast<std::size_t>(range.end - range.begin);
      item.pieces.push_back({range, std::vector<std::byte>(at, at + size)});
      at += size;
    }
  }

  DType dtype_of(const h5::Dataset& dataset) const {
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16})
      if (element_of(dtype) == dataset.element()) return dtype;
    fail(dataset.where(), ": holds elements of type ", dataset.type_text(),
         ", a state field is f32, f64, bf16 or f16");
  }

  template <class T>
  std::vector<T> values(const h5::Dataset& dataset, h5::Element element) {
    if (dataset.element() != element) fail(dataset.where(), ": holds elements of type ", dataset.type_text());
    if (dataset.bytes() > file_.size())
      fail(dataset.where(), ": claims ", dataset.bytes(), " bytes in a file of ", file_.size());
    if (purpose_ == Purpose::rehearse) {
      dataset.read(nullptr, beat_);
      return {};
    }
    std::vector<T> all(dataset.bytes() / sizeof(T));
    dataset.read(reinterpret_cast<std::byte*>(all.data()), beat_);
    return all;
  }

  std::string path_;
  Purpose purpose_;
  h5::Beat beat_;
  h5::File file_;
};

}  // namespace

void save_snapshot(const std::string& path, const Snapshot& snapshot) {
  TemporaryFile temporary(path);
  h5::File file = h5::File::create(temporary.path(), path);
  {
    h5::Group root = file.root();
    write_root(file, root, snapshot);
    h5::Group nodes = root.create_group("nodes");
    write_nodes(file, nodes, snapshot.states);
    write_boundaries(file, root, snapshot);
  }
  file.close();
  append_trailer(temporary.path(), path);
  temporary.commit();
}

Snapshot load_snapshot(const std::string& path) {
  check_trailer(path);
  // The trailer tells damage from what was written; whether plait wrote it, it does not.
  probe(path, [&](const h5::Beat& beat) { Reader(path, Reader::Purpose::rehearse, beat).read(); });
  return Reader(path, Reader::Purpose::load, {}).read();
}

FileKind file_kind(const std::string& path) {
  const Descriptor file(path, O_RDONLY);
  if (file.get() < 0) fail("cannot open file '", path, "': ", std::strerror(errno));
  const std::int64_t size = file.size();
  Trailer trailer;
  const Trailer empty;
  if (size >= static_cast<std::int64_t>(sizeof trailer) &&
      read_at(file.get(), &trailer, sizeof trailer, static_cast<std::uint64_t>(size) - sizeof trailer) &&
      std::memcmp(trailer.magic, empty.magic, sizeof empty.magic) == 0)
    return FileKind::snapshot;
  // HDF5's signature lies at 0 or, after a user block, at 512, 1024, 2048, ...
  constexpr unsigned char kSignature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
  for (std::int64_t at = 0; at + 8 <= size; at = at ? 2 * at : 512) {
    unsigned char found[8];
    if (read_at(file.get(), found, sizeof found, static_cast<std::uint64_t>(at)) &&
        std::memcmp(found, kSignature, sizeof found) == 0)
      return FileKind::model;
  }
  return FileKind::other;
}

}  // namespace plait
