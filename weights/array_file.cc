#include "weights/array_file.h"

#include "runtime/base/error.h"
#include "runtime/base/tensor.h"
#include "weights/h5.h"
#include "weights/temporary_file.h"

namespace plait {

struct ArrayFile::Impl {
  explicit Impl(const std::string& path)
      : temporary(path), file(h5::File::create(temporary.path(), path)), root(file.root()) {}

  template <class T>
  void add(const std::string& name, h5::Element element, const Shape& shape, std::span<const T> values) {
    if (element_count(shape) != static_cast<Index>(values.size()))
      fail("file '", temporary.destination(), "': array '", name, "' has ", values.size(),
           " values, its shape ", element_count(shape));
    file.write(root, name, element, shape, values.data());
  }

  TemporaryFile temporary;
  h5::File file;
  h5::Group root;
};

ArrayFile::ArrayFile(const std::string& path) : impl_(std::make_unique<Impl>(path)) {}
ArrayFile::~ArrayFile() = default;

void ArrayFile::add(const std::string& name, const Shape& shape, std::span<const std::int64_t> values) {
  impl_->add(name, h5::Element::i64, shape, values);
}
void ArrayFile::add(const std::string& name, const Shape& shape, std::span<const std::int32_t> values) {
  impl_->add(name, h5::Element::i32, shape, values);
}
void ArrayFile::add(const std::string& name, const Shape& shape, std::span<const double> values) {
  impl_->add(name, h5::Element::f64, shape, values);
}
void ArrayFile::add(const std::string& name, const Shape& shape, std::span<const float> values) {
  impl_->add(name, h5::Element::f32, shape, values);
}
void ArrayFile::add(const std::string& name, const Shape& shape, std::span<const std::uint8_t> values) {
  impl_->add(name, h5::Element::u8, shape, values);
}

void ArrayFile::finish() {
  impl_->file.close();
  impl_->temporary.commit();
}

}  // namespace plait
