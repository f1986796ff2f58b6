// The part of HDF5's C library that plait uses: owned identifiers, and every failure an Error that names file
// and object. Only weights/ knows this header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/view.h"

namespace plait::h5 {

// The library serves one thread at a time, with its own error printing off. Every call below takes a Guard;
// hold one to keep other threads out across several calls (the probe does so around fork).
class Guard {
 public:
  Guard();
  ~Guard();
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

 private:
  int (*printer_)(std::int64_t, void*) = nullptr;
  void* printer_data_ = nullptr;
};

// Owns one identifier.
class Handle {
 public:
  Handle() = default;
  Handle(std::int64_t id, int (*close)(std::int64_t)) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept { *this = std::move(other); }
  Handle& operator=(Handle&& other) noexcept;
  ~Handle() { reset(); }
  std::int64_t get() const { return id_; }
  int reset() noexcept;  // negative if closing failed

 private:
  std::int64_t id_ = -1;
  int (*close_)(std::int64_t) = nullptr;
};

// What a dataset's elements are. 16-bit floats are moved as raw bits; `other`: nothing plait reads.
enum class Element { f32, f64, bf16, f16, u8, i32, i64, other };
std::size_t bytes_of(Element element);

// Called after each piece of work with the bytes it delivered.
using Beat = std::function<void(std::uint64_t bytes)>;

// A group or dataset: what has attributes.
class Object {
 public:
  std::string where() const;  // "file 'm.h5', '/blocks/0/mixer/q'"
  const std::string& path() const { return path_; }
  std::uint64_t address() const;  // of its header in the file: what tells two hard links to one object

  bool has(const std::string& name) const;
  std::string text(const std::string& name) const;  // a string, fixed or variable length, of any encoding
  std::int64_t integer(const std::string& name) const;
  std::vector<std::int64_t> integers(const std::string& name) const;  // scalar or list, flattened
  void set(const std::string& name, std::string_view text);           // variable-length UTF-8
  void set(const std::string& name, std::int64_t value);
  void set(const std::string& name, std::span<const std::int64_t> values);

 protected:
  Object(Handle handle, std::shared_ptr<const std::string> file, std::string path)
      : handle_(std::move(handle)), file_(std::move(file)), path_(std::move(path)) {}
  Handle attribute(const std::string& name) const;
  void set_integers(const std::string& name, const Handle& space, const std::int64_t* values);

  Handle handle_;
  std::shared_ptr<const std::string> file_;
  std::string path_;
};

class Dataset : public Object {
 public:
  Dataset(Handle handle, std::shared_ptr<const std::string> file, std::string path);

  const Shape& shape() const { return shape_; }  // at least 0 dimensions, all of them at least 0
  Element element() const { return element_; }
  const std::string& type_text() const { return type_text_; }  // "32-bit float (big-endian)"
  std::uint64_t bytes() const { return bytes_; }               // of all elements in memory

  // Where the elements lie in the file, if they can be used there: contiguous, in this file, all written, of
  // exactly the native little-endian type, aligned to the element.
  std::optional<std::uint64_t> mappable_offset() const;

  // Reads every element, native and row-major, piece by piece so that a chunk is unpacked once. With a null
  // `to` the pieces are read and dropped: what the probe does.
  void read(std::byte* to, const Beat& beat) const;

 private:
  Shape piece() const;
  Handle type_;
  Shape shape_, chunk_;
  Element element_ = Element::other;
  bool native_ = false, big_endian_ = false;
  std::string type_text_;
  std::uint64_t bytes_ = 0;
};

class Group : public Object {
 public:
  using Object::Object;
  Group(Handle handle, std::shared_ptr<const std::string> file, std::string path)
      : Object(std::move(handle), std::move(file), std::move(path)) {}

  // Names in byte order. Links that are not hard, and names that are not plain UTF-8, are refused.
  std::vector<std::string> names() const;
  enum class Kind { group, dataset, other };
  Kind kind(const std::string& name) const;
  Group group(const std::string& name) const;
  Dataset dataset(const std::string& name) const;
  Group create_group(const std::string& name);

 private:
  Handle open(const std::string& name) const;
  std::string child(const std::string& name) const;
};

class File {
 public:
  // Read only, without file locks, whatever HDF5_DRIVER says through the plain file driver.
  static File open(const std::string& path);
  // Into an existing empty file `path`, called `shown` in messages. `limit`: as require_disk, checked before
  // each write.
  static File create(const std::string& path, const std::string& shown);
  ~File();
  File(File&&) noexcept;
  File& operator=(File&&) noexcept;

  Group root() const;
  int descriptor() const;      // of the open file
  std::uint64_t size() const;  // of the file on disk

  // Writing. Disk space is reserved before HDF5 touches it, because libhdf5 does not survive a full disk;
  // elements go to the file directly and are never in HDF5's buffers.
  struct Written {
    Dataset dataset;
    std::uint64_t offset;
  };
  Written write(Group& group, const std::string& name, Element element, const Shape& shape, const void* data);
  void reserve(
      std::uint64_t bytes);  // before attributes and groups; throws Error when the disk cannot take them
  void flush();
  void close();  // throws Error

 private:
  struct Impl;
  explicit File(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace plait::h5
