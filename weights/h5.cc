#include "weights/h5.h"

#include <fcntl.h>
#include <hdf5.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "runtime/base/arena.h"
#include "runtime/base/error.h"
#include "weights/json_text.h"
#include "weights/resources.h"

static_assert(std::is_same_v<hid_t, std::int64_t> && std::is_same_v<herr_t, int>);
static_assert(std::endian::native == std::endian::little,
              "model files are mapped as they lie: little-endian");

namespace plait::h5 {
namespace {

constexpr std::uint64_t kPiece = std::uint64_t{4} << 20;  // bytes read at once where nothing asks for more
constexpr std::uint64_t kMaxChunk = std::uint64_t{256}
                                    << 20;  // larger chunks are refused: they need memory at once
constexpr std::uint64_t kMaxText = std::uint64_t{16} << 20;
constexpr std::uint64_t kMaxElements = std::uint64_t{1} << 46;
constexpr std::uint64_t kMetadataRoom = std::uint64_t{1} << 20;  // kept free for HDF5's own blocks
constexpr std::size_t kMaxNames = 1'000'000;

// Not a recursive mutex: that knows its owner by a thread id, which a forked child does not keep.
std::mutex& mutex() {
  static std::mutex instance;
  return instance;
}
thread_local int guards = 0;

// The innermost message of the library's error stack: " (unable to ...)".
std::string reason() {
  std::string text;
  const auto visit = [](unsigned n, const H5E_error2_t* error, void* out) -> herr_t {
    if (n == 0 && error->desc) *static_cast<std::string*>(out) = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, visit, &text);
  return text.empty() ? "" : cat(" (", printable(text), ")");
}

std::string place(const std::string& file, const std::string& path) {
  return path == "/" ? cat("file '", file, "'") : cat("file '", file, "', '", printable(path), "'");
}

std::int64_t checked(std::int64_t result, const std::string& where, const char* what) {
  if (result < 0) fail(where, ": ", what, reason());
  return result;
}

Handle property_list(hid_t kind) {
  return {checked(H5Pcreate(kind), "HDF5", "cannot make a property list"), H5Pclose};
}

// Read only, no locks (they fail on network file systems), and no open object keeps a closed file open.
Handle access_list() {
  Handle list = property_list(H5P_FILE_ACCESS);
  H5Pset_fclose_degree(list.get(), H5F_CLOSE_STRONG);
  H5Pset_fapl_sec2(list.get());
  H5Pset_file_locking(list.get(), false, true);
  return list;
}

Handle copy_of(hid_t type) { return {checked(H5Tcopy(type), "HDF5", "cannot copy a type"), H5Tclose}; }

// 16-bit float with `exponent` bits, little-endian.
Handle half_type(std::size_t exponent, std::size_t bias) {
  Handle type = copy_of(H5T_IEEE_F32LE);
  const std::size_t mantissa = 15 - exponent;
  H5Tset_fields(type.get(), 15, mantissa, exponent, 0, mantissa);
  H5Tset_size(type.get(), 2);
  H5Tset_ebias(type.get(), bias);
  return type;
}

// How an element is stored by plait.
Handle file_type(Element element) {
  switch (element) {
    case Element::f32:
      return copy_of(H5T_IEEE_F32LE);
    case Element::f64:
      return copy_of(H5T_IEEE_F64LE);
    case Element::bf16:
      return half_type(8, 127);
    case Element::f16:
      return half_type(5, 15);
    case Element::u8:
      return copy_of(H5T_STD_U8LE);
    case Element::i32:
      return copy_of(H5T_STD_I32LE);
    case Element::i64:
      return copy_of(H5T_STD_I64LE);
    case Element::other:
      break;
  }
  fail("there is no file type for this element");
}

bool is_half(Element element) { return element == Element::bf16 || element == Element::f16; }

Element float_element(hid_t type, std::size_t size) {
  if (size == 4)
    return H5Tequal(type, H5T_IEEE_F32LE) > 0 || H5Tequal(type, H5T_IEEE_F32BE) > 0 ? Element::f32
                                                                                    : Element::other;
  if (size == 8)
    return H5Tequal(type, H5T_IEEE_F64LE) > 0 || H5Tequal(type, H5T_IEEE_F64BE) > 0 ? Element::f64
                                                                                    : Element::other;
  if (size != 2) return Element::other;
  const H5T_order_t order = H5Tget_order(type);
  for (const Element element : {Element::bf16, Element::f16}) {
    const Handle want = file_type(element);
    H5Tset_order(want.get(), order);
    if (H5Tequal(type, want.get()) > 0) return element;
  }
  return Element::other;
}

Element integer_element(hid_t type, std::size_t size) {
  const bool is_signed = H5Tget_sign(type) == H5T_SGN_2;
  if (size == 1 && !is_signed) return Element::u8;
  if (size == 4 && is_signed) return Element::i32;
  if (size == 8 && is_signed) return Element::i64;
  return Element::other;
}

std::string describe(hid_t type) {
  const H5T_class_t kind = H5Tget_class(type);
  const std::size_t bits = H5Tget_size(type) * 8;
  const char* order = H5Tget_order(type) == H5T_ORDER_BE ? " (big-endian)" : "";
  if (kind == H5T_FLOAT) return cat(bits, "-bit float", order);
  if (kind == H5T_INTEGER)
    return cat(bits, "-bit ", H5Tget_sign(type) == H5T_SGN_2 ? "signed" : "unsigned", " integer", order);
  return kind == H5T_STRING ? "string" : kind == H5T_COMPOUND ? "compound" : "unsupported";
}

std::uint64_t product(const std::vector<hsize_t>& sizes, std::uint64_t element, const std::string& where) {
  std::uint64_t all = element;
  const bool empty = std::find(sizes.begin(), sizes.end(), hsize_t{0}) != sizes.end();
  for (const hsize_t size : sizes)
    if (size > kMaxElements ||
        (!empty && (__builtin_mul_overflow(all, size, &all) || all / element > kMaxElements)))
      fail(where, ": its shape is larger than any file can be");
  return empty ? 0 : all;
}

std::vector<hsize_t> sizes_of(hid_t space, const std::string& where) {
  const int rank = H5Sget_simple_extent_ndims(space);
  if (H5Sget_simple_extent_type(space) == H5S_NULL || rank < 0) fail(where, ": has no elements and no shape");
  std::vector<hsize_t> sizes(static_cast<std::size_t>(rank));
  if (rank > 0)
    checked(H5Sget_simple_extent_dims(space, sizes.data(), nullptr), where, "cannot read its shape");
  return sizes;
}

Handle simple_space(const Shape& shape) {
  std::vector<hsize_t> sizes(shape.begin(), shape.end());
  const hid_t id = sizes.empty() ? H5Screate(H5S_SCALAR)
                                 : H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr);
  return {checked(id, "HDF5", "cannot make a shape"), H5Sclose};
}

void swap_pairs(std::byte* data, std::uint64_t bytes) {
  for (std::uint64_t i = 0; i + 1 < bytes; i += 2) std::swap(data[i], data[i + 1]);
}

}  // namespace

Guard::Guard() {
  if (guards++ == 0) mutex().lock();
  // After a close that failed the library's own exit handler crashes; plait closes what it opens, so it is
  // not needed.
  static const int once = H5dont_atexit();
  (void)once;
  H5Eget_auto2(H5E_DEFAULT, &printer_, &printer_data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Guard::~Guard() {
  H5Eset_auto2(H5E_DEFAULT, printer_, printer_data_);
  if (--guards == 0) mutex().unlock();
}

Handle& Handle::operator=(Handle&& other) noexcept {
  if (this == &other) return *this;
  reset();
  id_ = std::exchange(other.id_, -1);
  close_ = other.close_;
  return *this;
}

int Handle::reset() noexcept {
  if (id_ < 0) return 0;
  const Guard guard;
  return close_(std::exchange(id_, -1));
}

std::size_t bytes_of(Element element) {
  switch (element) {
    case Element::u8:
      return 1;
    case Element::bf16:
    case Element::f16:
      return 2;
    case Element::f32:
    case Element::i32:
      return 4;
    case Element::f64:
    case Element::i64:
      return 8;
    case Element::other:
      break;
  }
  return 0;
}

// -- Object

std::string Object::where() const { return place(*file_, path_); }

std::uint64_t Object::address() const {
  const Guard guard;
  H5O_info_t info;
  checked(H5Oget_info2(handle_.get(), &info, H5O_INFO_BASIC), where(), "cannot be examined");
  return info.addr;
}

bool Object::has(const std::string& name) const {
  const Guard guard;
  return checked(H5Aexists(handle_.get(), name.c_str()), where(), "its attributes cannot be read") > 0;
}

Handle Object::attribute(const std::string& name) const {
  if (!has(name)) fail(where(), ": attribute '", name, "' is missing");
  return {checked(H5Aopen(handle_.get(), name.c_str(), H5P_DEFAULT), where(),
                  cat("attribute '", name, "' cannot be opened").c_str()),
          H5Aclose};
}

std::string Object::text(const std::string& name) const {
  const Guard guard;
  const Handle attr = attribute(name);
  const std::string what = cat(where(), ": attribute '", name, "'");
  const Handle type(checked(H5Aget_type(attr.get()), what, " has no type"), H5Tclose);
  const Handle space(checked(H5Aget_space(attr.get()), what, " has no shape"), H5Sclose);
  if (H5Tget_class(type.get()) != H5T_STRING) fail(what, " must be a string, found ", describe(type.get()));
  if (product(sizes_of(space.get(), what), 1, what) != 1) fail(what, " must be one string, not several");
  std::string text;
  if (H5Tis_variable_str(type.get()) > 0) {
    char* stored = nullptr;
    checked(H5Aread(attr.get(), type.get(), &stored), what, " cannot be read");
    const std::unique_ptr<char, herr_t (*)(void*)> owner(stored, H5free_memory);
    if (stored) text.assign(stored, ::strnlen(stored, kMaxText + 1));
  } else {
    const std::size_t size = H5Tget_size(type.get());
    if (size > kMaxText) fail(what, " has ", size, " bytes, at most ", kMaxText, " are read");
    text.resize(size);
    checked(H5Aread(attr.get(), type.get(), text.data()), what, " cannot be read");
    text.erase(text.find_last_not_of('\0') + 1);  // padding
  }
  if (text.size() > kMaxText) fail(what, " is longer than ", kMaxText, " bytes");
  if (text.find('\0') != std::string::npos) fail(what, " contains a NUL character");
  if (!is_utf8(text)) fail(what, " is not valid UTF-8");
  return text;
}

std::vector<std::int64_t> Object::integers(const std::string& name) const {
  const Guard guard;
  const Handle attr = attribute(name);
  const std::string what = cat(where(), ": attribute '", name, "'");
  const Handle type(checked(H5Aget_type(attr.get()), what, " has no type"), H5Tclose);
  const Handle space(checked(H5Aget_space(attr.get()), what, " has no shape"), H5Sclose);
  if (H5Tget_class(type.get()) != H5T_INTEGER || H5Tget_size(type.get()) > 8)
    fail(what, " must be integers, found ", describe(type.get()));
  const std::uint64_t bytes = product(sizes_of(space.get(), what), 8, what);
  if (bytes > kMaxText) fail(what, " has ", bytes, " bytes, at most ", kMaxText, " are read");
  std::vector<std::int64_t> values(bytes / 8);
  if (!values.empty()) checked(H5Aread(attr.get(), H5T_NATIVE_INT64, values.data()), what, " cannot be read");
  return values;
}

std::int64_t Object::integer(const std::string& name) const {
  const auto values = integers(name);
  if (values.size() != 1)
    fail(where(), ": attribute '", name, "' must be one integer, found ", values.size());
  return values[0];
}

void Object::set(const std::string& name, std::string_view text) {
  const Guard guard;
  const Handle type = copy_of(H5T_C_S1), space = simple_space({});
  H5Tset_size(type.get(), H5T_VARIABLE);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  const Handle attr(
      checked(H5Acreate2(handle_.get(), name.c_str(), type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT),
              where(), "an attribute cannot be written"),
      H5Aclose);
  const std::string terminated(text);
  const char* pointer = terminated.c_str();
  checked(H5Awrite(attr.get(), type.get(), &pointer), where(), "an attribute cannot be written");
}

void Object::set_integers(const std::string& name, const Handle& space, const std::int64_t* values) {
  const Handle attr(
      checked(H5Acreate2(handle_.get(), name.c_str(), H5T_STD_I64LE, space.get(), H5P_DEFAULT, H5P_DEFAULT),
              where(), "an attribute cannot be written"),
      H5Aclose);
  if (values)
    checked(H5Awrite(attr.get(), H5T_NATIVE_INT64, values), where(), "an attribute cannot be written");
}

void Object::set(const std::string& name, std::int64_t value) {
  const Guard guard;
  set_integers(name, simple_space({}), &value);
}

void Object::set(const std::string& name, std::span<const std::int64_t> values) {
  const Guard guard;
  set_integers(name, simple_space({static_cast<Index>(values.size())}),
               values.empty() ? nullptr : values.data());
}

// -- Dataset

Dataset::Dataset(Handle handle, std::shared_ptr<const std::string> file, std::string path)
    : Object(std::move(handle), std::move(file), std::move(path)) {
  const Guard guard;
  type_ = Handle(checked(H5Dget_type(handle_.get()), where(), "has no type"), H5Tclose);
  const Handle space(checked(H5Dget_space(handle_.get()), where(), "has no shape"), H5Sclose);
  const auto sizes = sizes_of(space.get(), where());
  const H5T_class_t kind = H5Tget_class(type_.get());
  const std::size_t size = H5Tget_size(type_.get());
  if (kind == H5T_FLOAT) element_ = float_element(type_.get(), size);
  if (kind == H5T_INTEGER) element_ = integer_element(type_.get(), size);
  type_text_ = describe(type_.get());
  bytes_ = product(sizes, std::max<std::uint64_t>(h5::bytes_of(element_), 1), where());
  shape_.assign(sizes.begin(), sizes.end());
  big_endian_ = H5Tget_order(type_.get()) == H5T_ORDER_BE;
  if (element_ != Element::other) native_ = H5Tequal(type_.get(), file_type(element_).get()) > 0;

  const Handle list(checked(H5Dget_create_plist(handle_.get()), where(), "its storage cannot be examined"),
                    H5Pclose);
  const H5D_layout_t layout = H5Pget_layout(list.get());
  if (layout == H5D_VIRTUAL)
    fail(where(), ": is a virtual dataset over other files, which plait does not read");
  if (layout != H5D_CHUNKED) return;
  std::vector<hsize_t> chunk(sizes.size());
  if (H5Pget_chunk(list.get(), static_cast<int>(chunk.size()), chunk.data()) !=
      static_cast<int>(chunk.size()))
    fail(where(), ": its chunks cannot be examined", reason());
  chunk_.assign(chunk.begin(), chunk.end());
  const std::uint64_t bytes = product(chunk, std::max<std::size_t>(size, 1), where());
  if (bytes == 0 || bytes > kMaxChunk)
    fail(where(), ": has chunks of ", byte_text(bytes), ", at most ", byte_text(kMaxChunk), " are read");
}

std::optional<std::uint64_t> Dataset::mappable_offset() const {
  const Guard guard;
  const Handle list(checked(H5Dget_create_plist(handle_.get()), where(), "its storage cannot be examined"),
                    H5Pclose);
  if (H5Pget_layout(list.get()) != H5D_CONTIGUOUS || H5Pget_external_count(list.get()) != 0) return {};
  // With a user block a dataset that was never written reports offset 511; its storage size is 0 all the
  // same.
  if (!native_ || bytes_ == 0 || H5Dget_storage_size(handle_.get()) != bytes_) return {};
  const Handle file(checked(H5Iget_file_id(handle_.get()), where(), "has no file"), H5Fclose);
  const Handle access(checked(H5Fget_access_plist(file.get()), where(), "has no access list"), H5Pclose);
  if (H5Pget_driver(access.get()) != H5FD_SEC2) return {};
  const haddr_t offset = H5Dget_offset(handle_.get());
  if (offset == HADDR_UNDEF || offset % h5::bytes_of(element_) != 0) return {};
  int* descriptor = nullptr;
  struct stat stats {};
  if (H5Fget_vfd_handle(file.get(), access.get(), reinterpret_cast<void**>(&descriptor)) < 0) return {};
  if (::fstat(*descriptor, &stats) != 0) return {};
  const auto size = static_cast<std::uint64_t>(stats.st_size);
  if (offset > size || bytes_ > size - offset) return {};
  return offset;
}

// A chunk, or one element, grown from the innermost dimension outwards while it stays small.
Shape Dataset::piece() const {
  Shape piece = chunk_.empty() ? Shape(shape_.size(), 1) : chunk_;
  auto bytes = static_cast<Index>(h5::bytes_of(element_));
  for (std::size_t d = 0; d < piece.size(); ++d) bytes *= (piece[d] = std::min(piece[d], shape_[d]));
  for (std::size_t d = piece.size(); d-- > 0;) {
    const Index factor =
        std::clamp<Index>(static_cast<Index>(kPiece) / bytes, 1, ceil_div(shape_[d], piece[d]));
    const Index grown = std::min(shape_[d], piece[d] * factor);
    bytes = bytes / piece[d] * grown;
    piece[d] = grown;
    if (grown < shape_[d]) break;
  }
  return piece;
}

void Dataset::read(std::byte* to, const Beat& beat) const {
  const Guard guard;
  if (element_ == Element::other)
    fail(where(), ": holds elements of type ", type_text_, ", which plait does not read");
  if (bytes_ == 0) return;
  const Handle half =
      is_half(element_) ? copy_of(type_.get()) : file_type(element_);  // halves: no conversion
  const Handle file_space(checked(H5Dget_space(handle_.get()), where(), "has no shape"), H5Sclose);
  const Shape piece = this->piece();
  Buffer bounce;
  std::vector<hsize_t> start(shape_.size(), 0), count(shape_.size());
  for (bool more = true; more;) {
    std::uint64_t bytes = h5::bytes_of(element_);
    for (std::size_t d = 0; d < start.size(); ++d)
      bytes *= count[d] =
          std::min<hsize_t>(static_cast<hsize_t>(piece[d]), static_cast<hsize_t>(shape_[d]) - start[d]);
    const auto select = [&](const Handle& space) {
      if (!start.empty())
        checked(
            H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr),
            where(), "cannot be selected from");
    };
    select(file_space);
    if (!to && bounce.bytes() < bytes) bounce = Buffer(bytes);
    const Handle memory_space = simple_space(to ? shape_ : Shape(count.begin(), count.end()));
    if (to) select(memory_space);
    void* target = to ? static_cast<void*>(to) : bounce.as<void>();
    checked(H5Dread(handle_.get(), half.get(), memory_space.get(), file_space.get(), H5P_DEFAULT, target),
            where(), "cannot be read");
    if (beat) beat(bytes);
    more = false;
    for (std::size_t d = start.size(); d-- > 0 && !more;) {
      start[d] += static_cast<hsize_t>(piece[d]);
      more = start[d] < static_cast<hsize_t>(shape_[d]);
      if (!more) start[d] = 0;
    }
  }
  if (to && is_half(element_) && big_endian_) swap_pairs(to, bytes_);
}

// -- Group

std::string Group::child(const std::string& name) const {
  return path_ == "/" ? "/" + name : cat(path_, "/", name);
}

std::vector<std::string> Group::names() const {
  const Guard guard;
  struct Found {
    std::vector<std::string> names;
    std::string complaint;
  } found;
  const auto visit = [](hid_t, const char* name, const H5L_info_t* info, void* out) -> herr_t {
    Found& f = *static_cast<Found*>(out);
    try {
      const std::string_view text(name);
      if (printable(text) != text || text.empty() || text == "." || text.find('/') != text.npos)
        f.complaint =
            cat("holds the name '", printable(text), "', which is no plain text of at most 200 bytes");
      else if (info->type != H5L_TYPE_HARD)
        f.complaint = cat("'", text, "' is a link to somewhere else, which plait does not follow");
      else if (f.names.size() >= kMaxNames)
        f.complaint = cat("holds more than ", kMaxNames, " names");
      else
        f.names.emplace_back(text);
    } catch (...) {
      return -1;
    }
    return f.complaint.empty() ? 0 : -1;
  };
  const herr_t result = H5Literate(handle_.get(), H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, visit, &found);
  if (!found.complaint.empty()) fail(where(), ": ", found.complaint);
  checked(result, where(), "its members cannot be listed");
  std::sort(found.names.begin(), found.names.end());
  return std::move(found.names);
}

Handle Group::open(const std::string& name) const {
  return {checked(H5Oopen(handle_.get(), name.c_str(), H5P_DEFAULT), place(*file_, child(name)),
                  "cannot be opened"),
          H5Oclose};
}

Group::Kind Group::kind(const std::string& name) const {
  const Guard guard;
  const Handle object = open(name);
  const H5I_type_t type = H5Iget_type(object.get());
  return type == H5I_GROUP ? Kind::group : type == H5I_DATASET ? Kind::dataset : Kind::other;
}

Group Group::group(const std::string& name) const {
  const Guard guard;
  if (kind(name) != Kind::group) fail(place(*file_, child(name)), ": is not a group");
  return {open(name), file_, child(name)};
}

Dataset Group::dataset(const std::string& name) const {
  const Guard guard;
  if (kind(name) != Kind::dataset) fail(place(*file_, child(name)), ": is not a dataset");
  return {open(name), file_, child(name)};
}

Group Group::create_group(const std::string& name) {
  const Guard guard;
  const Handle list = property_list(H5P_GROUP_CREATE);
  H5Pset_obj_track_times(list.get(), false);  // the same contents, the same bytes
  return {Handle(checked(H5Gcreate2(handle_.get(), name.c_str(), H5P_DEFAULT, list.get(), H5P_DEFAULT),
                         place(*file_, child(name)), "cannot be written"),
                 H5Gclose),
          file_, child(name)};
}

// -- File

struct File::Impl {
  Handle file;
  std::shared_ptr<const std::string> shown;
  std::string path;
  std::uint64_t reserved = 0;
};

File::File(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
File::File(File&&) noexcept = default;
File& File::operator=(File&&) noexcept = default;
File::~File() = default;

File File::open(const std::string& path) {
  const Guard guard;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not hold us up
  if (fd < 0) fail("cannot open file '", path, "': ", std::strerror(errno));
  struct stat stats {};
  const bool regular = ::fstat(fd, &stats) == 0 && S_ISREG(stats.st_mode);
  ::close(fd);
  if (!regular) fail("cannot open file '", path, "': it is not a regular file");
  if (H5Fis_hdf5(path.c_str()) <= 0) fail("file '", path, "' is not an HDF5 file");
  auto impl = std::make_unique<Impl>();
  impl->shown = std::make_shared<const std::string>(path);
  impl->path = path;
  const Handle access = access_list();
  impl->file = Handle(
      checked(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), cat("file '", path, "'"), "is damaged"),
      H5Fclose);
  return File(std::move(impl));
}

File File::create(const std::string& path, const std::string& shown) {
  const Guard guard;
  require_disk(2 * kMetadataRoom, shown);
  auto impl = std::make_unique<Impl>();
  impl->shown = std::make_shared<const std::string>(shown);
  impl->path = path;
  const Handle access = access_list(), creation = property_list(H5P_FILE_CREATE);
  H5Pset_libver_bounds(access.get(), H5F_LIBVER_V110, H5F_LIBVER_V110);
  H5Pset_alignment(access.get(), 1, 64);
  H5Pset_obj_track_times(creation.get(), false);
  impl->file = Handle(checked(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.get(), access.get()),
                              cat("file '", shown, "'"), "cannot be created"),
                      H5Fclose);
  File file(std::move(impl));
  file.reserve(0);
  return file;
}

Group File::root() const {
  const Guard guard;
  return {Handle(checked(H5Gopen2(impl_->file.get(), "/", H5P_DEFAULT), cat("file '", *impl_->shown, "'"),
                         "has no root group"),
                 H5Gclose),
          impl_->shown, "/"};
}

int File::descriptor() const {
  const Guard guard;
  int* descriptor = nullptr;
  checked(H5Fget_vfd_handle(impl_->file.get(), H5P_DEFAULT, reinterpret_cast<void**>(&descriptor)),
          cat("file '", *impl_->shown, "'"), "has no descriptor");
  return *descriptor;
}

std::uint64_t File::size() const {
  struct stat stats {};
  if (::fstat(descriptor(), &stats) != 0)
    fail("cannot examine file '", *impl_->shown, "': ", std::strerror(errno));
  return static_cast<std::uint64_t>(stats.st_size);
}

void File::reserve(std::uint64_t bytes) {
  const Guard guard;
  haddr_t end = 0;
  checked(H5Fget_eoa(impl_->file.get(), &end), cat("file '", *impl_->shown, "'"), "cannot be written");
  if (end + bytes + kMetadataRoom <= impl_->reserved) return;
  const std::uint64_t want = end + bytes + 2 * kMetadataRoom;
  const auto from = static_cast<off_t>(impl_->reserved), length = static_cast<off_t>(want - impl_->reserved);
  const bool allowed = want <= file_size_limit();
  int error = !allowed                                                            ? EFBIG
              : ::fallocate(descriptor(), FALLOC_FL_KEEP_SIZE, from, length) != 0 ? errno
                                                                                  : 0;
  // File systems that cannot reserve: ask for the room instead.
  if (error == EOPNOTSUPP || error == ENOSYS)
    error = want - impl_->reserved > available_disk(impl_->path) ? ENOSPC : 0;
  if (error)
    fail("cannot write file '", *impl_->shown, "': ", std::strerror(error), " (",
         byte_text(want - impl_->reserved), " needed, ", byte_text(available_disk(impl_->path)), " free)");
  impl_->reserved = want;
}

namespace {

void write_at(int fd, const std::byte* data, std::uint64_t bytes, std::uint64_t offset,
              const std::string& shown) {
  while (bytes > 0) {
    const std::size_t step = std::min<std::uint64_t>(bytes, std::uint64_t{1} << 30);
    const ssize_t done = ::pwrite(fd, data, step, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) fail("cannot write file '", shown, "': ", std::strerror(errno));
    data += done;
    bytes -= static_cast<std::uint64_t>(done);
    offset += static_cast<std::uint64_t>(done);
  }
}

}  // namespace

File::Written File::write(Group& group, const std::string& name, Element element, const Shape& shape,
                          const void* data) {
  const Guard guard;
  std::uint64_t bytes = h5::bytes_of(element);
  for (const Index size : shape) bytes *= static_cast<std::uint64_t>(size);
  reserve(bytes);
  const Handle list = property_list(H5P_DATASET_CREATE), type = file_type(element),
               space = simple_space(shape);
  H5Pset_layout(list.get(), H5D_CONTIGUOUS);
  H5Pset_alloc_time(list.get(), H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(list.get(), H5D_FILL_TIME_NEVER);
  H5Pset_obj_track_times(list.get(), false);
  const std::string path = group.path() == "/" ? "/" + name : cat(group.path(), "/", name);
  const std::string where = place(*impl_->shown, path);
  Handle id(checked(H5Dcreate2(impl_->file.get(), path.c_str(), type.get(), space.get(), H5P_DEFAULT,
                               list.get(), H5P_DEFAULT),
                    where, "cannot be written"),
            H5Dclose);
  const haddr_t offset = bytes ? H5Dget_offset(id.get()) : 0;
  if (offset == HADDR_UNDEF) fail(where, ": cannot be written", reason());
  write_at(descriptor(), static_cast<const std::byte*>(data), bytes, offset, *impl_->shown);
  return {Dataset(std::move(id), impl_->shown, path), offset};
}

void File::flush() {
  const Guard guard;
  checked(H5Fflush(impl_->file.get(), H5F_SCOPE_GLOBAL), cat("file '", *impl_->shown, "'"),
          "cannot be flushed");
}

void File::close() {
  const Guard guard;
  checked(impl_->file.reset(), cat("file '", *impl_->shown, "'"), "cannot be closed");
}

}  // namespace plait::h5
