// A named parameter as it lies in memory, and the set of parameters one node takes.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/view.h"

namespace plait {

enum class DType { f32, f64, bf16, f16, q8, q4 };
enum class Layout { rows, panels };  // panels: the packed order of panel.h; vectors are `rows`

const char* name_of(DType dtype);
const char* name_of(Layout layout);
DType parse_dtype(const std::string& text);  // throws Error on an unknown name
std::size_t bytes_of(DType dtype);           // of one element; q8 and q4 are refused with a sentence
// Relative error of rounding to f32, f64, bf16 or f16: 2^-24, 2^-53, 2^-8, 2^-11 at most.
double unit_roundoff(DType dtype);
std::string to_string(const Shape& shape);  // "[32, 64]"
Index element_count(const Shape& shape);

// Immutable; `owner` keeps `data` alive (a mapped file or a buffer). Copies share.
struct Tensor {
  Shape shape;  // true sizes, without panel padding
  DType dtype = DType::f32;
  Layout layout = Layout::rows;
  std::shared_ptr<const void> owner;
  const void* data = nullptr;
  std::size_t bytes = 0;  // stored bytes, with panel padding
};

// An f32 tensor in plain rows that owns a copy of `values`.
Tensor make_tensor(Shape shape, std::span<const float> values);

// Every element in double, row-major in the true shape, whatever dtype and layout: what the reference engine
// reads.
std::vector<double> to_double(const Tensor& tensor);
// The same in float (bf16 and f16 widen exactly).
std::vector<float> to_float(const Tensor& tensor);

// How `plait new` and the random test models start a parameter.
enum class Init {
  normal,       // N(0, 1 / sqrt(in)): projections
  unit_normal,  // N(0, 1): directions of random features
  embedding,    // N(0, 0.02)
  zeros,
  ones,
  small,       // N(0, 0.02) around zero: biases
  around_one,  // 1 + N(0, 0.1): norm gains
  decay_log,   // log of U(1, 16): a_log
  time_step,   // inverse softplus of a log-uniform step in [1e-3, 1e-1]: dt_bias
  taps,        // U(-1, 1) / sqrt(kernel): convolution taps
};

// A parameter a node wants: exact name and shape, or the node is refused.
struct TensorSpec {
  std::string name;
  Shape shape;
  Init init = Init::normal;
  std::string shape_text = {};  // with the settings' names: "[num_heads * head_dim, width]"
  bool matrix = false;  // a product's weight [out, in]: may be packed and narrow; others are plain f32
};

// The tensors handed to one node, by the names of its specs. Checked against the specs before a layer sees
// them.
class Parameters {
 public:
  Parameters() = default;
  explicit Parameters(std::map<std::string, Tensor> tensors) : tensors_(std::move(tensors)) {}

  bool has(const std::string& name) const { return tensors_.contains(name); }
  const Tensor& tensor(const std::string& name) const;           // asserts that it is there
  std::span<const float> vector(const std::string& name) const;  // f32 rows of any rank; asserts
  const std::map<std::string, Tensor>& all() const { return tensors_; }

  // Throws a sentence naming `node`, the tensor and both shapes if anything is missing, surplus or
  // mis-shaped.
  static void check(const std::string& node, const std::vector<TensorSpec>& specs,
                    const std::map<std::string, Tensor>& tensors);

 private:
  std::map<std::string, Tensor> tensors_;
};

}  // namespace plait
