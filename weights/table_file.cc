#include "weights/table_file.h"

#include <optional>

#include "runtime/base/error.h"
#include "weights/h5.h"
#include "weights/temporary_file.h"

namespace plait {

struct TableFile::Impl {
  explicit Impl(const std::string& path)
      : temporary(path), file(h5::File::create(temporary.path(), path)), root(file.root()) {}

  void add(const std::string& name, h5::Element element, std::size_t count, const void* data) {
    if (rows && *rows != count)
      fail("file '", temporary.destination(), "': column '", name, "' has ", count, " rows, the others have ",
           *rows);
    rows = count;
    file.write(root, name, element, {static_cast<Index>(count)}, data);
  }

  TemporaryFile temporary;
  h5::File file;
  h5::Group root;
  std::optional<std::size_t> rows;
};

TableFile::TableFile(const std::string& path) : impl_(std::make_unique<Impl>(path)) {}
TableFile::~TableFile() = default;

void TableFile::add(const std::string& name, std::span<const std::int64_t> values) {
  impl_->add(name, h5::Element::i64, values.size(), values.data());
}

void TableFile::add(const std::string& name, std::span<const double> values) {
  impl_->add(name, h5::Element::f64, values.size(), values.data());
}

void TableFile::finish() {
  impl_->file.close();
  impl_->temporary.commit();
}

}  // namespace plait
