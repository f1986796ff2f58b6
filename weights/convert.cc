#include "weights/convert.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include "runtime/base/arena.h"
#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "runtime/base/half.h"
#include "runtime/base/panel.h"
#include "runtime/base/parallel.h"
#include "runtime/run/model.h"
#include "weights/families/family.h"
#include "weights/initialise.h"
#include "weights/json_text.h"
#include "weights/model_file.h"
#include "weights/resources.h"
#include "weights/safetensors.h"
#include "weights/temporary_file.h"

namespace plait {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfig = "config.json";
constexpr const char* kTypes = "tensors.json";  // published name -> the type it came in
constexpr std::uint64_t kMaxText = std::uint64_t{64} << 20;

// What belongs to a tokenizer or says how to use one.
constexpr const char* kTokenizerFiles[] = {"tokenizer.json",
                                           "tokenizer_config.json",
                                           "special_tokens_map.json",
                                           "added_tokens.json",
                                           "tokenizer.model",
                                           "vocab.json",
                                           "merges.txt",
                                           "chat_template.jinja",
                                           "chat_template.json",
                                           "generation_config.json",
                                           "plait_tokenizer.json"};
// The description of a tokenizer that plait wrote itself, and the one that says there is none.
constexpr const char* kOwnTokenizer = "plait_tokenizer.json";
constexpr const char* kCompiled = "compiled";  // tables made of a tokenizer's files; not exported
constexpr const char* kNoTokenizer = R"({"kind": "none"})";

std::string read_text(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) fail("file '", path.string(), "' is missing or no regular file");
  const std::uint64_t size = fs::file_size(path, error);
  if (error) fail("cannot examine file '", path.string(), "': ", error.message());
  if (size > kMaxText)
    fail("file '", path.string(), "' has ", size, " bytes, at most ", kMaxText, " are read");
  std::ifstream in(path, std::ios::binary);
  std::string text(size, '\0');
  if (!in.read(text.data(), static_cast<std::streamsize>(size)))
    fail("cannot read file '", path.string(), "'");
  return text;
}

// ---- The plan: what tensor gets its rows from where

struct Target {
  std::string node, tensor;
  Index rows = 0, cols = 0;
  Shape shape;
  bool matrix = false;
  std::vector<TensorSlice> slices;  // ascending, gapless
  std::vector<Fold> folds;
};

Index cols_of(const Shape& shape) {
  Index cols = 1;
  for (std::size_t d = 1; d < shape.size(); ++d) cols *= shape[d];
  return cols;
}

// Every tensor the card wants, by the place it has in the file.
std::map<std::string, Target> targets_of(const Json& card, const std::string& origin) {
  const Graph graph = expand_card(card, origin);
  std::map<std::string, Target> targets;
  for (const auto& [node, specs] : Model::wanted(graph))
    for (const TensorSpec& s : specs)
      targets[tensor_path(node, s.name)] = {node,    s.name,   s.shape[0], cols_of(s.shape),
                                            s.shape, s.matrix, {},         {}};
  return targets;
}

// Throws unless the ranges [first, second) are gapless and end at `rows`.
void check_cover(std::vector<std::pair<Index, Index>> ranges, Index rows, const std::string& what) {
  std::sort(ranges.begin(), ranges.end());
  Index at = 0;
  for (const auto& [first, end] : ranges) {
    if (first != at)
      fail(what, ": row ", std::min(first, at), " is used ", first < at ? "twice" : "not at all");
    at = end;
  }
  if (at != rows) fail(what, ": has ", rows, " rows, ", at, " are used");
}

// Hangs slices and folds on the targets; every row of every published tensor and of every target is used
// once.
std::map<std::string, Target> make_plan(const Json& card, const TensorMap& map, const std::string& origin) {
  auto targets = targets_of(card, origin);
  std::map<std::string, std::vector<std::pair<Index, Index>>> used;
  for (const TensorSlice& slice : map.slices) {
    const auto target = targets.find(tensor_path(slice.node, slice.tensor));
    const Shape& shape = map.published.at(slice.published);
    if (target == targets.end())
      fail(origin, ": '", slice.node, ".", slice.tensor, "' (from '", slice.published,
           "') is no tensor of the model");
    if (cols_of(shape) != target->second.cols)
      fail(origin, ": '", slice.node, ".", slice.tensor, "' has shape ", to_string(target->second.shape),
           ", '", slice.published, "' ", to_string(shape));
    target->second.slices.push_back(slice);
    used[slice.published].emplace_back(slice.published_row, slice.published_row + slice.rows);
  }
  for (const auto& [name, shape] : map.published)
    check_cover(used[name], shape[0], cat(origin, ": tensor '", name, "'"));
  for (auto& [path, target] : targets) {
    std::vector<std::pair<Index, Index>> ranges;
    for (const TensorSlice& slice : target.slices) ranges.emplace_back(slice.row, slice.row + slice.rows);
    check_cover(ranges, target.rows, cat(origin, ": '", target.node, ".", target.tensor, "'"));
  }
  for (const Fold& fold : map.folds) targets.at(tensor_path(fold.node, fold.tensor)).folds.push_back(fold);
  return targets;
}

// ---- Reading a checkpoint

std::set<std::string> names_of(const Safetensors& source) {
  std::set<std::string> names;
  for (const auto& [name, entry] : source.tensors()) names.insert(name);
  return names;
}

// Names and shapes of the checkpoint against the map; returns how many tensors each skipped prefix left out.
std::map<std::string, Index> check_source(const Safetensors& source, const TensorMap& map,
                                          const std::string& folder) {
  for (const auto& [name, shape] : map.published) {
    const auto entry = source.tensors().find(name);
    if (entry == source.tensors().end()) fail("checkpoint '", folder, "' lacks the tensor '", name, "'");
    if (entry->second.shape != shape)
      fail("file '", entry->second.file, "', tensor '", name, "': has shape ", to_string(entry->second.shape),
           ", the configuration gives it ", to_string(shape));
    Safetensors::dtype_of(name, entry->second);
  }
  std::map<std::string, Index> skipped;
  for (const auto& [name, entry] : source.tensors()) {
    if (map.published.contains(name)) continue;
    const auto prefix =
        std::find_if(map.skipped.begin(), map.skipped.end(),
                     [&name = name](const std::string& start) { return name.starts_with(start); });
    if (prefix == map.skipped.end())
      fail("file '", entry.file, "', tensor '", printable(name),
           "': belongs to nothing the configuration describes");
    ++skipped[*prefix];
  }
  return skipped;
}

// The type a target is stored in.
DType choose_dtype(const Target& target, const Safetensors& source, std::optional<DType> wanted) {
  bool wide = false;
  for (const TensorSlice& slice : target.slices) {
    const auto& entry = source.tensors().at(slice.published);
    const DType found = Safetensors::dtype_of(slice.published, entry);
    if (found == DType::f16 && !wanted)
      fail("file '", entry.file, "', tensor '", slice.published,
           "': is F16, which plait does not compute with; choose --dtype f32 or bf16");
    wide = wide || found != DType::bf16;
  }
  if (!target.matrix) return DType::f32;
  return wanted.value_or(wide ? DType::f32 : DType::bf16);
}

float widen(const std::byte* at, DType dtype) {
  if (dtype == DType::f32) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return dtype == DType::bf16 ? to_float(bf16{bits}) : to_float(f16{bits});
}

// The rows of one target, as they come from the checkpoint.
class TargetRows {
 public:
  TargetRows(const Target& target, const Safetensors& source) : target_(target) {
    for (const TensorSlice& slice : target.slices) {
      const auto& entry = source.tensors().at(slice.published);
      pieces_.push_back({slice, entry.bytes.data(), Safetensors::dtype_of(slice.published, entry)});
    }
  }

  // Rows [first, first + rows.rows), multipliers folded in.
  void read(Index first, View<float> rows) const {
    for (Index r = 0; r < rows.rows; ++r) {
      const Piece& piece = piece_of(first + r);
      const std::byte* from = piece.row(first + r, target_.cols);
      if (piece.dtype == DType::f32)
        std::memcpy(rows.row(r), from, static_cast<std::size_t>(target_.cols) * sizeof(float));
      else
        for (Index c = 0; c < target_.cols; ++c) rows(r, c) = widen(from + c * 2, piece.dtype);
      for (const Fold& fold : target_.folds)
        if (fold.row <= first + r && first + r < fold.row + fold.rows)
          for (Index c = 0; c < target_.cols; ++c)
            rows(r, c) = static_cast<float>(static_cast<double>(rows(r, c)) * fold.factor);
    }
  }

  // The stored bits themselves, where every piece is bf16 and nothing is folded.
  bool plain_bf16() const {
    return target_.folds.empty() &&
           std::all_of(pieces_.begin(), pieces_.end(), [](const Piece& p) { return p.dtype == DType::bf16; });
  }
  void read(Index first, View<bf16> rows) const {
    for (Index r = 0; r < rows.rows; ++r)
      std::memcpy(rows.row(r), piece_of(first + r).row(first + r, target_.cols),
                  static_cast<std::size_t>(target_.cols) * sizeof(bf16));
  }

 private:
  struct Piece {
    TensorSlice slice;
    const std::byte* data;
    DType dtype;
    const std::byte* row(Index r, Index cols) const {
      return data + (slice.published_row + r - slice.row) * cols * static_cast<Index>(bytes_of(dtype));
    }
  };
  const Piece& piece_of(Index row) const {
    return *std::find_if(pieces_.begin(), pieces_.end(), [&](const Piece& piece) {
      return piece.slice.row <= row && row < piece.slice.row + piece.slice.rows;
    });
  }

  const Target& target_;
  std::vector<Piece> pieces_;
};

std::size_t stored_bytes(const Target& target, DType dtype) {
  const Index elements =
      target.matrix ? packed_elements(dtype, target.rows, target.cols) : target.rows * target.cols;
  return static_cast<std::size_t>(elements) * bytes_of(dtype);
}

template <class T, class Pack>
void pack_rows(const TargetRows& rows, Index first, Index count, Index cols, Pack&& pack) {
  std::vector<T> block(static_cast<std::size_t>(count * cols));
  rows.read(first, View<T>(block.data(), count, cols));
  pack(View<const T>(block.data(), count, cols));
}

// Panel by panel, so that only the packed form stands in memory as a whole: in `buffer`, which is large
// enough. One buffer serves all tensors, because freed ones of many sizes leave holes that the next does not
// fit.
Tensor build(const Target& target, const Safetensors& source, DType dtype, Buffer& buffer) {
  const TargetRows rows(target, source);
  const std::size_t bytes = stored_bytes(target, dtype);
  Tensor tensor{target.shape,      dtype, target.matrix ? Layout::panels : Layout::rows, nullptr,
                buffer.as<void>(), bytes};
  if (!target.matrix) {
    rows.read(0, View<float>(buffer.as<float>(), target.rows, target.cols));
    return tensor;
  }
  const Index panels = ceil_div(target.rows, kPanel);
  parallel_for(available_threads(), panels, [&](Index p) {
    const Index first = p * kPanel, count = std::min(kPanel, target.rows - first);
    std::byte* place =
        buffer.as<std::byte>() + bytes / static_cast<std::size_t>(panels) * static_cast<std::size_t>(p);
    if (dtype == DType::f32)
      pack_rows<float>(rows, first, count, target.cols,
                       [&](View<const float> v) { pack_f32(v, reinterpret_cast<float*>(place)); });
    else if (rows.plain_bf16())
      pack_rows<bf16>(rows, first, count, target.cols,
                      [&](View<const bf16> v) { pack_bf16(v, reinterpret_cast<bf16*>(place)); });
    else
      pack_rows<float>(rows, first, count, target.cols,
                       [&](View<const float> v) { pack_bf16(v, reinterpret_cast<bf16*>(place)); });
  });
  return tensor;
}

// ---- Files beside the tensors

std::map<std::string, std::string> read_tokenizer_files(const std::string& folder) {
  std::map<std::string, std::string> files;
  std::error_code ignored;
  for (const char* name : kTokenizerFiles)
    if (fs::exists(fs::path(folder) / name, ignored)) files[name] = read_text(fs::path(folder) / name);
  return files;
}

bool has_tokenizer(const std::map<std::string, std::string>& files) {
  return files.contains("tokenizer.json") || files.contains("tokenizer.model") ||
         files.contains("vocab.json") || files.contains(kOwnTokenizer);
}

// Of what was read, without what was skipped: an export needs no more.
Json published_types(const Safetensors& source, const TensorMap& map) {
  Json types = Json::object();
  for (const auto& [name, shape] : map.published) types[name] = source.tensors().at(name).type;
  return types;
}

std::string folder_name(const std::string& folder) {
  fs::path path = fs::absolute(folder).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  const std::string name = printable(path.filename().string());
  return name.empty() ? "model" : name;
}

void describe(Conversion& result, const Json& card, const std::string& origin) {
  const Graph graph = expand_card(card, origin);
  for (const Node& node : graph.nodes) ++result.nodes_by_kind[node.kind];
  std::map<std::string, Index> kept;
  for (const auto& [node, specs] : Model::wanted(graph))
    for (const TensorSpec& spec : specs)
      (graph.aside.contains(node) ? kept[node.substr(0, node.find('.'))] : result.parameters) +=
          element_count(spec.shape);
  for (const auto& [use, parameters] : kept)
    result.notes.push_back(cat("kept '", use, "' aside: ", parameters, " parameters outside the graph"));
}

// What a folder is read as: its configuration (with the multipliers gone where they are folded), card and
// map.
struct Checkpoint {
  const Family* family;
  std::string config;  // text to keep
  Reading reading;
};

Reading read_family(const Family& family, const Json& config, const std::string& where,
                    const std::set<std::string>& names, std::vector<std::string>& notes) {
  SourceConfig source(config, where, notes);
  return family.read(source, names);
}

Checkpoint read_checkpoint(const std::string& folder, const std::set<std::string>& names,
                           Multipliers multipliers, std::vector<std::string>& notes) {
  const std::string path = (fs::path(folder) / kConfig).string(), where = cat("file '", path, "'");
  std::string text = read_text(path);
  const Json config = parse_config(text, where);
  const Family& family = find_family(config, where);
  Checkpoint checkpoint{&family, std::move(text), read_family(family, config, where, names, notes)};
  if (multipliers == Multipliers::settings) {
    checkpoint.reading.map.folds.clear();
    return checkpoint;
  }
  if (!family.folded) fail(where, ": family ", family.name, " has no multipliers to fold");
  const Json plain = family.folded(config, names);
  std::vector<std::string> repeated;
  checkpoint.config = plain.dump(2);
  checkpoint.reading.card = read_family(family, plain, where, names, repeated).card;
  checkpoint.reading.card["notes"]["multipliers"] = "folded into the weights";
  return checkpoint;
}

// Returns the bytes of the largest tensor.
std::uint64_t check_room(const std::map<std::string, Target>& targets,
                         const std::map<std::string, DType>& dtypes, const std::string& destination) {
  std::uint64_t total = 0, largest = 0;
  for (const auto& [path, target] : targets) {
    const std::uint64_t bytes = stored_bytes(target, dtypes.at(path));
    total += bytes;
    largest = std::max(largest, bytes);
  }
  require_disk(total, destination);
  require_memory(largest, cat("the largest tensor of '", destination, "'"));
  return largest;
}

}  // namespace

Conversion convert_checkpoint(const std::string& folder, const std::string& destination,
                              const ConvertOptions& options) {
  if (options.dtype && *options.dtype != DType::f32 && *options.dtype != DType::bf16)
    fail("checkpoint '", folder, "' can be converted to f32 or bf16; ", name_of(*options.dtype),
         " weights are not written yet");
  const Safetensors source = Safetensors::open_folder(folder);
  Conversion result;
  auto [family, config, reading] =
      read_checkpoint(folder, names_of(source), options.multipliers, result.notes);
  Json& card = reading.card;
  const std::string origin = cat("checkpoint '", folder, "'");
  if (!card.contains("name")) card.update({{"name", folder_name(folder)}, {"family", family->name}});
  result.family = expand_card(card, origin).card.family;
  for (const auto& [prefix, count] : check_source(source, reading.map, folder))
    result.notes.push_back(cat("left out ", count, " tensors '", prefix, "*'"));
  const auto targets = make_plan(card, reading.map, origin);
  check_card(card, origin);
  describe(result, card, origin);

  std::map<std::string, DType> dtypes;
  for (const auto& [path, target] : targets) dtypes[path] = choose_dtype(target, source, options.dtype);
  Buffer buffer(check_room(targets, dtypes, destination));
  auto tokenizer = read_tokenizer_files(folder);
  const std::string compiled =
      options.compile_tokenizer && has_tokenizer(tokenizer) ? options.compile_tokenizer(tokenizer) : "";
  if (!compiled.empty()) tokenizer[kCompiled] = compiled;
  ModelWriter writer(
      destination, card,
      cat(family->name, " checkpoint '", folder_name(folder), "', config SHA-256 ", sha256(config)));
  double done = 0;
  for (const auto& [path, target] : targets) {
    writer.add(target.node, target.tensor, build(target, source, dtypes.at(path), buffer));
    for (const TensorSlice& slice : target.slices) Safetensors::release(source.tensors().at(slice.published));
    if (options.progress) options.progress(++done / static_cast<double>(targets.size()));
  }
  for (const auto& [name, bytes] : tokenizer) writer.add_tokenizer_file(name, bytes);
  if (!has_tokenizer(tokenizer)) {
    writer.add_tokenizer_file(kOwnTokenizer, kNoTokenizer);
    result.notes.push_back("found no tokenizer files: the model takes token ids only");
  }
  writer.add_published_file(kConfig, config);
  writer.add_published_file(kTypes, published_types(source, reading.map).dump());
  result.digest = writer.finish();
  return result;
}

// ---- The way back

namespace {

constexpr const char* kWeights = "model.safetensors";
constexpr const char* kByteTokenizer =
    R"({"kind": "bytes", "vocab": 256})";  // what an empty /tokenizer means

// How a model leaves: whose names, which configuration.
struct Departure {
  std::string config;
  TensorMap map;
  Json types;  // published name -> the type it came in
};

// What the reader makes of a configuration, without what `convert` adds.
Json bare(Json card) {
  for (const char* key : {"family", "name", "notes"}) card.erase(key);
  return card;
}

// The published form, if the model came as one and its card is still what the configuration says.
std::optional<Departure> published_form(const ModelData& data) {
  if (!data.published.contains(kConfig) || !data.published.contains(kTypes)) return {};
  const std::string where = cat("file '", data.origin, "', '/published/", kConfig, "'");
  const std::string& text = data.published.at(kConfig);
  const Json config = parse_config(text, where);
  const Json types =
      parse_json(data.published.at(kTypes), cat("file '", data.origin, "', '/published/", kTypes, "'"));
  if (!types.is_object()) fail("file '", data.origin, "', '/published/", kTypes, "' must hold a JSON object");
  std::set<std::string> names;
  for (const auto& [name, type] : types.items()) names.insert(name);
  std::vector<std::string> notes;
  Reading reading = read_family(find_family(config, where), config, where, names, notes);
  if (bare(reading.card) != bare(data.card)) return {};
  return Departure{text, std::move(reading.map), types};
}

Departure plain_form(const ModelData& data) {
  const Json config = {{"model_type", "plait"}, {"plait_card", data.card}};
  std::vector<std::string> notes;
  const std::string where = cat("file '", data.origin, "'");
  return {config.dump(2) + "\n", read_family(find_family(config, where), config, where, {}, notes).map,
          Json::object()};
}

// Rows of a stored tensor in its own type, a panel at a time.
class StoredRows {
 public:
  explicit StoredRows(const Tensor& tensor)
      : tensor_(tensor),
        cols_(cols_of(tensor.shape)),
        row_bytes_(static_cast<std::size_t>(cols_) * bytes_of(tensor.dtype)) {}

  // Rows [first, first + count) of one panel, or of a tensor in rows, as float or as bf16 bits.
  template <class T>
  void read(Index first, Index count, View<T> to) {
    const std::byte* rows = locate(first);
    for (Index i = 0; i < count * cols_; ++i)
      convert(rows + i * static_cast<Index>(bytes_of(tensor_.dtype)), to.data[i]);
  }

 private:
  const std::byte* locate(Index first) {
    const auto* data = static_cast<const std::byte*>(tensor_.data);
    if (tensor_.layout == Layout::rows) return data + static_cast<std::size_t>(first) * row_bytes_;
    const Index panel = first / kPanel, held = std::min(kPanel, tensor_.shape[0] - panel * kPanel);
    if (panel != unpacked_) unpack(panel, held);
    return rows_.data() + static_cast<std::size_t>(first - panel * kPanel) * row_bytes_;
  }
  void unpack(Index panel, Index held) {
    const Index at = panel * packed_elements(tensor_.dtype, kPanel, cols_);
    rows_.resize(static_cast<std::size_t>(held) * row_bytes_);
    if (tensor_.dtype == DType::f32)
      unpack_f32(static_cast<const float*>(tensor_.data) + at,
                 View<float>(reinterpret_cast<float*>(rows_.data()), held, cols_));
    else
      unpack_bf16(static_cast<const bf16*>(tensor_.data) + at,
                  View<bf16>(reinterpret_cast<bf16*>(rows_.data()), held, cols_));
    unpacked_ = panel;
  }
  void convert(const std::byte* at, float& to) const { to = widen(at, tensor_.dtype); }
  // Only ever of bf16, or of f32 that holds a bf16 value.
  void convert(const std::byte* at, bf16& to) const {
    std::memcpy(&to.bits, at + bytes_of(tensor_.dtype) - sizeof to.bits, sizeof to.bits);
  }

  const Tensor& tensor_;
  Index cols_, unpacked_ = -1;
  std::size_t row_bytes_;
  std::vector<std::byte> rows_;
};

bool holds_bf16(const Tensor& tensor) {
  const auto* values = static_cast<const std::uint32_t*>(tensor.data);
  return std::all_of(values, values + tensor.bytes / sizeof *values,
                     [](std::uint32_t bits) { return (bits & 0xffffu) == 0; });
}

// Everything that is sent, slice by slice, under the name it leaves by.
class Export {
 public:
  Export(const ModelData& data, Departure departure) : data_(data), departure_(std::move(departure)) {
    const auto targets = make_plan(data.card, departure_.map, cat("file '", data.origin, "'"));
    for (const auto& [path, target] : targets)
      for (const TensorSlice& slice : target.slices) {
        slices_[slice.published].push_back(slice);
        if (target.matrix) matrices_.insert(slice.published);
      }
    for (auto& [name, slices] : slices_)
      std::sort(slices.begin(), slices.end(),
                [](const TensorSlice& a, const TensorSlice& b) { return a.published_row < b.published_row; });
  }

  std::vector<SafetensorsWriter::Item> items() const {
    std::vector<SafetensorsWriter::Item> items;
    for (const auto& [name, shape] : departure_.map.published) items.push_back({name, dtype(name), shape});
    return items;
  }
  const std::string& config() const { return departure_.config; }

  void send(const SafetensorsWriter::Item& item, SafetensorsWriter& writer) const {
    for (const TensorSlice& slice : slices_.at(item.name)) {
      if (item.dtype == DType::bf16)
        send<bf16>(slice, cols_of(item.shape), writer);
      else
        send<float>(slice, cols_of(item.shape), writer);
    }
  }

 private:
  const Tensor& stored(const TensorSlice& slice) const {
    return data_.tensors.at(slice.node).at(slice.tensor);
  }

  // A matrix leaves in the type it is stored in. Everything else was widened to f32 when it came: what was
  // bf16 and still holds such values leaves as bf16.
  DType dtype(const std::string& name) const {
    const bool matrix = matrices_.contains(name);
    const auto type = departure_.types.find(name);
    const bool came_narrow = type != departure_.types.end() && *type == "BF16";
    const auto& slices = slices_.at(name);
    const bool narrow = std::all_of(slices.begin(), slices.end(), [&](const TensorSlice& slice) {
      const Tensor& tensor = stored(slice);
      return matrix ? tensor.dtype == DType::bf16 : came_narrow && holds_bf16(tensor);
    });
    return narrow ? DType::bf16 : DType::f32;
  }

  template <class T>
  void send(const TensorSlice& slice, Index cols, SafetensorsWriter& writer) const {
    StoredRows rows(stored(slice));
    std::vector<T> block(static_cast<std::size_t>(kPanel * cols));
    for (Index row = slice.row; row < slice.row + slice.rows;) {
      const Index count = std::min((row / kPanel + 1) * kPanel, slice.row + slice.rows) - row;
      rows.read(row, count, View<T>(block.data(), count, cols));
      writer.append(std::as_bytes(std::span(block.data(), static_cast<std::size_t>(count * cols))));
      row += count;
    }
  }

  const ModelData& data_;
  Departure departure_;
  std::map<std::string, std::vector<TensorSlice>> slices_;  // by published name, in its order
  std::set<std::string> matrices_;
};

void write_text(const std::string& path, const std::string& text, const std::string& shown) {
  std::ofstream out(path, std::ios::binary);
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  if (!out.flush()) fail("cannot write file '", shown, "'");
}

std::map<std::string, std::string> tokenizer_to_export(const ModelData& data) {
  std::map<std::string, std::string> files;
  for (const auto& [name, bytes] : data.tokenizer)
    if (name.find('/') == std::string::npos && name != kCompiled &&
        !(name == kOwnTokenizer && bytes == kNoTokenizer))
      files[name] = bytes;
  if (data.tokenizer.empty()) files[kOwnTokenizer] = kByteTokenizer;
  return files;
}

}  // namespace

void export_checkpoint(const std::string& path, const std::string& folder,
                       const std::function<void(double fraction)>& progress) {
  const auto model = load(path);
  const ModelData& data = model->data();
  auto departure = published_form(data);
  const Export sending(data, departure ? std::move(*departure) : plain_form(data));
  TemporaryFolder temporary(folder);
  const auto shown = [&](const std::string& name) { return (fs::path(folder) / name).string(); };
  write_text(temporary.add(kConfig), sending.config(), shown(kConfig));
  for (const auto& [name, bytes] : tokenizer_to_export(data))
    write_text(temporary.add(name), bytes, shown(name));
  SafetensorsWriter writer(temporary.add(kWeights), shown(kWeights), sending.items());
  double done = 0;
  for (const auto& item : writer.order()) {
    sending.send(item, writer);
    if (progress) progress(++done / static_cast<double>(writer.order().size()));
  }
  writer.finish();
  temporary.commit();
}

}  // namespace plait
