#include "weights/model_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "runtime/base/arena.h"
#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "runtime/base/panel.h"
#include "weights/h5.h"
#include "weights/json_text.h"
#include "weights/probe.h"
#include "weights/resources.h"
#include "weights/temporary_file.h"

namespace plait {
namespace {

constexpr int kMaxDepth = 64;

// A dataset that is a tensor.
struct Entry {
  h5::Dataset dataset;
  std::string node, name;
  Tensor tensor;  // data and owner are filled by the second pass
};

// Whether a node's name means a place in the group of files `group`.
bool inside(const std::string& node, const std::string& group) {
  return node == group || node.starts_with(group + ".");
}

// What precedes a tensor's bytes in the digest.
std::string digest_header(const std::string& path, const Tensor& tensor) {
  std::string sizes;
  for (const Index size : tensor.shape) sizes += cat(sizes.empty() ? "" : "x", size);
  const char* layout = tensor.layout == Layout::panels ? "panels"
                       : tensor.shape.size() == 1      ? "vector"
                                                       : "rows";
  return cat(path, "\n", name_of(tensor.dtype), " ", layout, " ", sizes, "\n");
}

h5::Element element_of(DType dtype) {
  if (dtype == DType::f32) return h5::Element::f32;
  if (dtype == DType::bf16) return h5::Element::bf16;
  if (dtype == DType::f16) return h5::Element::f16;
  fail(name_of(dtype), " tensors cannot be stored in a model file: only f32, bf16 and f16");
}

// -- Attributes of a tensor

DType dtype_of(const h5::Dataset& dataset) {
  const h5::Element element = dataset.element();
  const DType found = element == h5::Element::bf16  ? DType::bf16
                      : element == h5::Element::f16 ? DType::f16
                                                    : DType::f32;
  const bool known =
      element == h5::Element::bf16 || element == h5::Element::f16 || element == h5::Element::f32;
  const std::string encoding = dataset.has("encoding") ? dataset.text("encoding")
                               : known                 ? name_of(found)
                                                       : "none";
  if (encoding == "q8" || encoding == "q4")
    fail(dataset.where(), ": has encoding ", encoding,
         ", which this program does not read yet: only f32, bf16 and f16");
  if (!known)
    fail(dataset.where(), ": holds elements of type ", dataset.type_text(),
         ", a tensor must be f32, bf16 or f16");
  if (encoding != name_of(found))
    fail(dataset.where(), ": has encoding '", printable(encoding), "', but its elements are ",
         name_of(found));
  return found;
}

Layout layout_of(const h5::Dataset& dataset, std::size_t rank) {
  if (!dataset.has("layout")) return Layout::rows;
  const std::string layout = dataset.text("layout");
  if (layout == "panels" && rank == 2) return Layout::panels;
  if (layout == "rows" || (layout == "vector" && rank == 1)) return Layout::rows;
  fail(dataset.where(), ": has layout '", printable(layout), "', a tensor with ", rank,
       " dimensions is stored in ",
       rank == 1   ? "'vector' or 'rows'"
       : rank == 2 ? "'rows' or 'panels'"
                   : "'rows'");
}

Shape true_shape(const h5::Dataset& dataset) {
  if (!dataset.has("shape")) return dataset.shape();
  const auto sizes = dataset.integers("shape");
  const bool good =
      std::all_of(sizes.begin(), sizes.end(), [](std::int64_t s) { return 0 <= s && s < (1ll << 40); });
  const Shape shape(sizes.begin(), sizes.end());
  if (!good || shape.empty() || shape.size() > 8)
    fail(dataset.where(), ": has the impossible shape ", to_string(shape));
  return shape;
}

// Shape, dtype and layout, checked against each other and the dataset.
Tensor describe(const h5::Dataset& dataset) {
  Tensor tensor;
  tensor.shape = true_shape(dataset);
  tensor.dtype = dtype_of(dataset);
  tensor.layout = layout_of(dataset, tensor.shape.size());
  tensor.bytes = dataset.bytes();
  if (tensor.shape.empty()) fail(dataset.where(), ": a tensor needs at least one dimension");
  Shape stored = tensor.shape;
  if (tensor.layout == Layout::panels) {
    if (tensor.dtype == DType::f16) fail(dataset.where(), ": f16 is stored in rows, not in panels");
    stored = packed_shape(tensor.dtype, tensor.shape[0], tensor.shape[1]);
  }
  if (stored != dataset.shape())
    fail(dataset.where(), ": is stored as ", to_string(dataset.shape()), ", but shape ",
         to_string(tensor.shape), " in ", name_of(tensor.layout), " of ", name_of(tensor.dtype),
         " is stored as ", to_string(stored));
  return tensor;
}

// -- Reading

// Memory a tensor takes besides the mapped file: its bytes if they are read, and a packed copy of a matrix in
// rows.
std::uint64_t memory_needed(const Entry& entry) {
  const Tensor& tensor = entry.tensor;
  std::uint64_t need = entry.dataset.mappable_offset() ? 0 : tensor.bytes;
  if (tensor.layout == Layout::rows && tensor.shape.size() == 2)
    need += tensor.bytes * (tensor.dtype == DType::f16 ? 2 : 1);
  return need;
}

enum class Purpose { rehearse, load };  // rehearse: everything but keeping the data

class Reader {
 public:
  Reader(const std::string& path, Purpose purpose, h5::Beat beat)
      : path_(path), purpose_(purpose), beat_(std::move(beat)), file_(h5::File::open(path)) {}

  ModelData read() {
    h5::Group root = file_.root();
    read_header(root);
    walk(root, "", 0);
    std::sort(entries_.begin(), entries_.end(),
              [](const Entry& a, const Entry& b) { return a.dataset.path() < b.dataset.path(); });
    check_memory();
    for (Entry& entry : entries_) read_tensor(entry);
    for (const auto& [name, dataset] : tokenizer_) read_bytes(dataset, data_.tokenizer[name]);
    for (const auto& [name, dataset] : published_) read_bytes(dataset, data_.published[name]);
    if (purpose_ == Purpose::load) {
      if (data_.digest.empty()) data_.digest = digest();
      for (Entry& entry : entries_) data_.tensors[entry.node][entry.name] = std::move(entry.tensor);
    }
    return std::move(data_);
  }

  // Of what the file holds, whatever it says; after read() with Purpose::load it is gone.
  static std::pair<std::string, std::string> stored_and_true_digest(const std::string& path) {
    Reader reader(path, Purpose::load, {});
    h5::Group root = reader.file_.root();
    reader.read_header(root);
    reader.walk(root, "", 0);
    std::sort(reader.entries_.begin(), reader.entries_.end(),
              [](const Entry& a, const Entry& b) { return a.dataset.path() < b.dataset.path(); });
    Digest digest;
    for (Entry& entry : reader.entries_) {  // one tensor in memory at a time
      reader.read_tensor(entry);
      add(digest, entry);
      entry.tensor = {};
    }
    return {reader.data_.digest, digest.hex()};
  }

 private:
  void read_header(const h5::Group& root) {
    const std::string where = cat("file '", path_, "'");
    if (root.has("plait_snapshot")) fail(where, " is a plait snapshot, not a model");
    if (!root.has("plait_format")) fail(where, " is not a plait model: it has no attribute 'plait_format'");
    const std::int64_t format = root.integer("plait_format");
    if (format != kFormat)
      fail(where, " has plait_format ", format, ", this program reads plait_format ", kFormat);
    data_.origin = path_;
    data_.card = parse_json(root.text("card"), cat("the card of ", where));
    if (!data_.card.is_object()) fail("the card of ", where, " must be a JSON object");
    if (root.has("created_by")) data_.created_by = root.text("created_by");
    if (root.has("source")) data_.source = root.text("source");
    if (root.has("sha256")) data_.digest = root.text("sha256");
    const bool hex = data_.digest.find_first_not_of("0123456789abcdef") == std::string::npos;
    if (root.has("sha256") && (!hex || data_.digest.size() != 64))
      fail(where, ": attribute 'sha256' must be 64 hexadecimal digits, found '", printable(data_.digest),
           "'");
  }

  // `node` is the dotted name of the group.
  void walk(const h5::Group& group, const std::string& node, int depth) {
    if (depth > kMaxDepth) fail(group.where(), ": lies more than ", kMaxDepth, " groups deep");
    if (!visited_.insert(group.address()).second) fail(group.where(), ": is a group that is reached twice");
    for (const std::string& name : group.names()) {
      if (beat_) beat_(0);
      const h5::Group::Kind kind = group.kind(name);
      if (kind == h5::Group::Kind::other) continue;  // a named type
      const bool tokenizer = inside(node, "tokenizer"), published = inside(node, "published");
      if (!tokenizer && !published && name.find('.') != std::string::npos)
        fail(group.where(), ": the name '", name, "' has a dot; groups stand for the dots of node names");
      const std::string full = node.empty() ? name : cat(node, ".", name);
      if (kind == h5::Group::Kind::group)
        walk(group.group(name), full, depth + 1);
      else if (tokenizer || published)
        (tokenizer ? tokenizer_ : published_)
            .emplace_back(file_name(group.path(), name), group.dataset(name));
      else
        add_tensor(group.dataset(name), node, name);
    }
  }

  // Of a dataset in "/tokenizer/a": "a/name".
  static std::string file_name(const std::string& group, const std::string& name) {
    const auto slash = group.find('/', 1);
    return slash == std::string::npos ? name : cat(group.substr(slash + 1), "/", name);
  }

  void add_tensor(h5::Dataset dataset, const std::string& node, const std::string& name) {
    if (node.empty()) fail(dataset.where(), ": is a tensor outside the groups of the nodes");
    Tensor tensor = describe(dataset);
    entries_.push_back({std::move(dataset), node, name, std::move(tensor)});
  }

  void check_memory() const {
    std::uint64_t need = 0;
    const auto add = [&](std::uint64_t bytes) { need += std::min(bytes, kUnknown - need); };
    for (const Entry& entry : entries_) add(memory_needed(entry));
    for (const auto* files : {&tokenizer_, &published_})
      for (const auto& [name, dataset] : *files) add(dataset.bytes());
    require_memory(need, cat("file '", path_, "'"));
  }

  void read_tensor(Entry& entry) {
    Tensor& tensor = entry.tensor;
    if (const auto offset = entry.dataset.mappable_offset()) {
      if (beat_) beat_(0);
      if (purpose_ == Purpose::rehearse) return;
      tensor.owner = mapping();
      tensor.data = static_cast<const std::byte*>(tensor.owner.get()) + *offset;
    } else if (purpose_ == Purpose::rehearse) {
      entry.dataset.read(nullptr, beat_);
    } else {
      auto buffer = std::make_shared<Buffer>(tensor.bytes);
      entry.dataset.read(buffer->as<std::byte>(), beat_);
      tensor.data = buffer->as<void>();
      tensor.owner = std::move(buffer);
    }
  }

  void read_bytes(const h5::Dataset& dataset, std::string& bytes) {
    if (dataset.element() != h5::Element::u8)
      fail(dataset.where(), ": must hold bytes (8-bit unsigned integers), found ", dataset.type_text());
    if (purpose_ == Purpose::rehearse) return dataset.read(nullptr, beat_);
    bytes.resize(dataset.bytes());
    dataset.read(reinterpret_cast<std::byte*>(bytes.data()), beat_);
  }

  // The whole file, read only. The descriptor is HDF5's own, so both look at the same file.
  std::shared_ptr<const void> mapping() {
    if (mapping_) return mapping_;
    const std::size_t size = file_.size();
    void* start = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file_.descriptor(), 0);
    if (start == MAP_FAILED) fail("cannot map file '", path_, "': ", std::strerror(errno));
    mapping_ = {start, [size](const void* p) { ::munmap(const_cast<void*>(p), size); }};
    return mapping_;
  }

  static void add(Digest& digest, const Entry& entry) {
    digest.add(digest_header(entry.dataset.path(), entry.tensor));
    digest.add(entry.tensor.data, entry.tensor.bytes);
  }

  std::string digest() const {
    Digest digest;
    for (const Entry& entry : entries_) add(digest, entry);
    return digest.hex();
  }

  std::string path_;
  Purpose purpose_;
  h5::Beat beat_;
  h5::File file_;
  ModelData data_;
  std::set<std::uint64_t> visited_;
  std::vector<Entry> entries_;
  std::vector<std::pair<std::string, h5::Dataset>> tokenizer_, published_;  // files as bytes
  std::shared_ptr<const void> mapping_;
};

void rehearse(const std::string& path) {
  probe(path, [&](const h5::Beat& beat) { Reader(path, Purpose::rehearse, beat).read(); });
}

}  // namespace

ModelData read_model_file(const std::string& path) {
  rehearse(path);
  return Reader(path, Purpose::load, {}).read();
}

std::shared_ptr<const Model> load(const std::string& path) {
  return std::make_shared<const Model>(read_model_file(path));
}

void check_digest(const std::string& path) {
  rehearse(path);
  const auto [stored, found] = Reader::stored_and_true_digest(path);
  if (stored.empty())
    fail("file '", path, "' holds no digest (attribute 'sha256') to check its tensors against");
  if (stored != found)
    fail("file '", path, "' is damaged: its tensors have SHA-256 ", found, ", it says ", stored);
}

std::string tensor_path(const std::string& node, const std::string& name) {
  std::string path = cat("/", node, "/", name);
  std::replace(path.begin(), path.begin() + 1 + static_cast<std::ptrdiff_t>(node.size()), '.', '/');
  return path;
}

// -- Writing

namespace {

// A path component: what the reader will accept.
void check_name(std::string_view name, const std::string& whole) {
  if (name.empty() || name == "." || name.find('/') != name.npos || printable(name) != name ||
      name.size() > 200)
    fail("'", printable(whole), "' cannot be a name in a model file");
}

}  // namespace

struct ModelWriter::Impl {
  Impl(const std::string& path)
      : temporary(path), file(h5::File::create(temporary.path(), path)), root(file.root()) {}

  // The group of that path, made if it is new; parents first.
  h5::Group& group(const std::string& path) {
    const auto found = groups.find(path);
    if (found != groups.end()) return found->second;
    const auto slash = path.rfind('/');
    h5::Group& parent = slash == 0 ? root : group(path.substr(0, slash));
    file.reserve(0);
    return groups.emplace(path, parent.create_group(path.substr(slash + 1))).first->second;
  }

  void add_file(const std::string& folder, const std::string& name, const std::string& bytes) {
    check_name(name, cat(folder, "/", name));
    file.write(group("/" + folder), name, h5::Element::u8, {static_cast<Index>(bytes.size())}, bytes.data());
  }

  struct Written {
    std::string header;
    std::uint64_t offset, bytes;
  };
  TemporaryFile temporary;
  h5::File file;  // closed before `temporary` removes it
  h5::Group root;
  std::map<std::string, h5::Group> groups;
  std::map<std::string, Written> tensors;  // by path
};

namespace {

void check_tensor_name(const std::string& node, const std::string& name) {
  const std::string whole = cat(node, ".", name);
  for (std::size_t at = 0; at <= node.size();) {
    const std::size_t dot = std::min(node.find('.', at), node.size());
    check_name(std::string_view(node).substr(at, dot - at), whole);
    at = dot + 1;
  }
  check_name(name, whole);
  if (name.find('.') != std::string::npos || inside(node, "tokenizer") || inside(node, "published"))
    fail("'", printable(whole), "' cannot be a tensor of a model file");
}

}  // namespace

ModelWriter::ModelWriter(const std::string& path, const Json& card, const std::string& source)
    : impl_(std::make_unique<Impl>(path)) {
  const std::string text = card.dump();
  if (!is_utf8(source)) fail("file '", path, "': its source is not valid UTF-8");
  impl_->file.reserve(text.size() + source.size());
  impl_->root.set("plait_format", std::int64_t{kFormat});
  impl_->root.set("card", text);
  impl_->root.set("created_by", "plait " PLAIT_VERSION);
  impl_->root.set("source", source);
}

ModelWriter::~ModelWriter() = default;

void ModelWriter::add(const std::string& node, const std::string& name, const Tensor& tensor) {
  check_tensor_name(node, name);
  const std::string path = tensor_path(node, name);
  if (impl_->tensors.contains(path)) fail("tensor '", path, "' is written twice");
  const bool panels = tensor.layout == Layout::panels;
  const Shape stored =
      panels ? packed_shape(tensor.dtype, tensor.shape.at(0), tensor.shape.at(1)) : tensor.shape;
  if (static_cast<std::size_t>(element_count(stored)) * bytes_of(tensor.dtype) != tensor.bytes)
    fail("tensor '", path, "' of shape ", to_string(tensor.shape), " has ", tensor.bytes, " bytes");
  h5::Group& group = impl_->group(path.substr(0, path.rfind('/')));
  auto written = impl_->file.write(group, name, element_of(tensor.dtype), stored, tensor.data);
  const std::vector<std::int64_t> sizes(tensor.shape.begin(), tensor.shape.end());
  written.dataset.set("shape", sizes);
  written.dataset.set("encoding", name_of(tensor.dtype));
  written.dataset.set("layout", panels ? "panels" : sizes.size() == 1 ? "vector" : "rows");
  impl_->tensors[path] = {digest_header(path, tensor), written.offset, tensor.bytes};
}

void ModelWriter::add_tokenizer_file(const std::string& name, const std::string& bytes) {
  impl_->add_file("tokenizer", name, bytes);
}

void ModelWriter::add_published_file(const std::string& name, const std::string& bytes) {
  impl_->add_file("published", name, bytes);
}

std::string ModelWriter::finish() {
  Digest digest;
  std::vector<std::byte> buffer(std::size_t{4} << 20);
  for (const auto& [path, tensor] : impl_->tensors) {  // read back: tensors may have come in any order
    digest.add(tensor.header);
    for (std::uint64_t at = 0; at < tensor.bytes;) {
      const std::size_t step = std::min<std::uint64_t>(buffer.size(), tensor.bytes - at);
      const ssize_t got =
          ::pread(impl_->file.descriptor(), buffer.data(), step, static_cast<off_t>(tensor.offset + at));
      if (got <= 0) fail("cannot read back '", path, "' of file '", impl_->temporary.destination(), "'");
      digest.add(buffer.data(), static_cast<std::size_t>(got));
      at += static_cast<std::uint64_t>(got);
    }
  }
  const std::string hex = digest.hex();
  impl_->file.reserve(0);
  impl_->root.set("sha256", hex);
  impl_->groups.clear();
  impl_->file.close();
  impl_->temporary.commit();
  return hex;
}

}  // namespace plait
