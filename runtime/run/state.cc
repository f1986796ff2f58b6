#include "runtime/run/state.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <type_traits>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "runtime/base/half.h"

namespace plait {

struct Log::Page {
  Buffer rows;
};

namespace {

constexpr Index kPageRows = 64;
constexpr Index kLongestGap = Index{1} << 24;  // pages between rows, which take memory though they hold none

using Range = Log::Range;

// A value as a page holds it.
template <class Stored, class T>
Stored stored(T value) {
  if constexpr (std::is_same_v<Stored, bf16>)
    return to_bf16(value);
  else if constexpr (std::is_same_v<Stored, f16>)
    return to_f16(value);
  else
    return value;
}

std::vector<Range> intersect(const std::vector<Range>& a, const std::vector<Range>& b) {
  std::vector<Range> both;
  for (const Range& x : a)
    for (const Range& y : b)
      if (std::max(x.begin, y.begin) < std::min(x.end, y.end))
        both.push_back({std::max(x.begin, y.begin), std::min(x.end, y.end)});
  std::sort(both.begin(), both.end(), [](const Range& x, const Range& y) { return x.begin < y.begin; });
  return both;
}

}  // namespace

Log::Log(const Field& field, Index depth)
    : width_(field.width()),
      window_(field.window),
      sinks_(field.window > 0 ? field.sinks : 0),
      depth_(depth),
      dtype_(field.dtype),
      element_(bytes_of(field.dtype)),
      columns_(field.order == Field::Order::columns) {
  // A short window (a convolution's) would waste most of a long page; panels of columns want whole pages.
  if (window_ > 0 && window_ < kPageRows && !columns_)
    page_rows_ = static_cast<Index>(std::bit_ceil(static_cast<std::size_t>(window_)));
}

const void* Log::page_bytes(Index position) const {
  if (position < 0) return nullptr;
  const Index page = position / page_rows_;
  const Page* found = nullptr;
  if (page < static_cast<Index>(sink_pages_.size()))
    found = sink_pages_[static_cast<std::size_t>(page)].get();
  else if (page >= first_page_ && page < first_page_ + static_cast<Index>(pages_.size()))
    found = pages_[static_cast<std::size_t>(page - first_page_)].get();
  return found ? found->rows.as<std::byte>() : nullptr;
}

std::byte* Log::writable_page(Index page) {
  assert(page >= first_page_);
  // A gap before the first page held needs no entries, unless it covers sinks, which are found by page
  // number.
  if (pages_.empty() && page * page_rows_ >= sinks_) first_page_ = page;
  const Index gap = page - first_page_ - static_cast<Index>(pages_.size());
  if (gap > kLongestGap)  // of a state that was made up
    fail("a log has no rows in the ", gap * page_rows_, " positions before ", page * page_rows_);
  while (first_page_ + static_cast<Index>(pages_.size()) <= page) pages_.push_back(nullptr);
  auto& slot = pages_[static_cast<std::size_t>(page - first_page_)];
  if (!slot) {
    slot = std::make_shared<Page>(Page{Buffer(static_cast<std::size_t>(page_rows_ * width_) * element_)});
    slot->rows.zero();
  } else if (slot.use_count() > 1) {
    slot = std::make_shared<Page>(*slot);
  }
  return slot->rows.as<std::byte>();
}

template <class Stored, class T>
void Log::write(Index position, View<const T> rows) {
  assert(sizeof(Stored) == element_ && rows.cols == width_ && position >= end_);
  for (Index r = 0; r < rows.rows;) {
    const Index p = position + r, offset = p % page_rows_;
    const Index count = std::min(page_rows_ - offset, rows.rows - r);
    auto* page = reinterpret_cast<Stored*>(writable_page(p / page_rows_));
    for (Index i = 0; i < count; ++i) {
      const T* row = rows.row(r + i);
      if (columns_)
        for (Index c = 0; c < width_; ++c) page[c * page_rows_ + offset + i] = stored<Stored>(row[c]);
      else
        std::transform(row, row + width_, page + (offset + i) * width_, stored<Stored, T>);
    }
    r += count;
  }
  if (rows.rows > 0) {
    add_range(position, position + rows.rows);
    end_ = position + rows.rows;
  }
}

template <class Stored>
void Log::read(Range range, Stored* rows) const {
  for (Index p = range.begin; p < range.end; ++p, rows += width_) {
    const auto* page = static_cast<const Stored*>(page_bytes(p));
    assert(page);
    const Index offset = p % page_rows_;
    if (columns_)
      for (Index c = 0; c < width_; ++c) rows[c] = page[c * page_rows_ + offset];
    else
      std::memcpy(rows, page + offset * width_, static_cast<std::size_t>(width_) * sizeof(Stored));
  }
}

template <class F>
void Log::as_stored(const F& f) const {
  if (element_ == sizeof(double))
    f(double{});
  else if (element_ == sizeof(float))
    f(float{});
  else
    f(std::uint16_t{});
}

void Log::append(Index position, View<const float> rows) {
  if (dtype_ == DType::bf16)
    write<bf16>(position, rows);
  else if (dtype_ == DType::f16)
    write<f16>(position, rows);
  else
    write<float>(position, rows);
}
void Log::append(Index position, View<const double> rows) { write<double>(position, rows); }

void Log::append_passed(Index position, View<const float> rows) {
  const Index end = position + rows.rows;
  const Index kept = std::min(end - window_ - depth_ + 1, end - 1) / page_rows_ * page_rows_;
  if (window_ == 0 || sinks_ > 0 || kept <= position) return append(position, rows);
  drop_before(kept);
  append(kept, rows.slice_rows(kept - position, end - kept));
  // What was not copied existed all the same.
  if (present_.size() > 1 && present_[present_.size() - 2].end == position) {
    present_[present_.size() - 2].end = present_.back().end;
    present_.pop_back();
  } else {
    present_.back().begin = position;
  }
}

void Log::add_range(Index begin, Index end) {
  if (!present_.empty() && present_.back().end == begin)
    present_.back().end = end;
  else
    present_.push_back({begin, end});
}

void Log::truncate(Index end) {
  end_ = std::min(end_, end);
  while (!present_.empty() && present_.back().begin >= end_) present_.pop_back();
  if (!present_.empty()) present_.back().end = std::min(present_.back().end, end_);
  const Index pages = ceil_div(end_, page_rows_);
  while (!pages_.empty() && first_page_ + static_cast<Index>(pages_.size()) > pages) pages_.pop_back();
}

void Log::hide_before(Index position) {
  std::erase_if(present_, [&](const Range& r) { return r.end <= position; });
  if (!present_.empty()) present_.front().begin = std::max(present_.front().begin, position);
}

void Log::drop_before(Index position) {
  while (!pages_.empty() && (first_page_ + 1) * page_rows_ <= position) {
    if (first_page_ * page_rows_ < sinks_) sink_pages_.push_back(pages_.front());
    pages_.pop_front();
    ++first_page_;
  }
}

void Log::trim() {
  if (window_ > 0) drop_before(end_ - window_ - depth_ + 1);
}

Index Log::first_held() const { return first_page_ * page_rows_; }

std::size_t Log::bytes() const {
  std::size_t held = 0;
  for (const auto& page : pages_) held += page ? 1 : 0;
  for (const auto& page : sink_pages_) held += page ? 1 : 0;
  return held * static_cast<std::size_t>(page_rows_ * width_) * element_;
}

std::vector<Range> Log::logical() const {
  if (window_ == 0) return present_;
  const Index recent = std::max(end_ - window_ + 1, Index{0});
  if (sinks_ >= recent) return present_;
  return intersect(present_, {{0, sinks_}, {recent, end_}});
}

std::vector<Log::Piece> Log::pieces() const {
  std::vector<Piece> all;
  for (const Range& range : logical()) {
    Piece piece{range, std::vector<std::byte>(static_cast<std::size_t>((range.end - range.begin) * width_) *
                                              element_)};
    as_stored([&]<class Stored>(Stored) { read(range, reinterpret_cast<Stored*>(piece.rows.data())); });
    all.push_back(std::move(piece));
  }
  return all;
}

void Log::restore(Index end, std::vector<Range> present, const std::vector<Piece>& pieces) {
  pages_.clear();
  sink_pages_.clear();
  present_.clear();
  first_page_ = end_ = 0;
  for (const Piece& piece : pieces) {
    const Index rows = piece.range.end - piece.range.begin;
    if (window_ > 0) drop_before(piece.range.begin);
    as_stored([&]<class Stored>(Stored) {
      const auto* data = reinterpret_cast<const Stored*>(piece.rows.data());
      write<Stored>(piece.range.begin, View<const Stored>(data, rows, width_));
    });
  }
  end_ = end;
  present_ = std::move(present);
  if (window_ > 0) drop_before(end_ - window_ + 1);
}

bool Log::shows(const std::vector<Range>& present) const {
  return std::all_of(present.begin(), present.end(), [&](const Range& range) {
    return std::any_of(present_.begin(), present_.end(),
                       [&](const Range& r) { return r.begin <= range.begin && range.end <= r.end; });
  });
}

bool Log::restore_prefix(const Log& later, Index end, std::vector<Range> present) {
  if (!later.shows(present)) return false;
  *this = later;
  truncate(end);
  end_ = end;
  present_ = std::move(present);
  return true;
}

std::size_t Log::predicted_bytes(Index end) const {
  Index pages = ceil_div(end, page_rows_);
  if (window_ > 0) {
    const Index first = std::max<Index>(end - window_ - depth_ + 1, 0) / page_rows_;
    pages += std::min(first, ceil_div(sinks_, page_rows_)) - first;
  }
  return static_cast<std::size_t>(pages * page_rows_ * width_) * element_;
}

std::size_t Log::copy_bytes() const {
  if (window_ > 0) return bytes();
  return end_ % page_rows_ == 0 ? 0 : static_cast<std::size_t>(page_rows_ * width_) * element_;
}

namespace {

bool gridded(const Field& field) {
  return field.kind == Field::Kind::anchor || field.kind == Field::Kind::open;
}

Index open_stride(const Field& field) {
  return field.order == Field::Order::columns ? round_up(field.grid, 32) : field.width();
}

std::size_t value_bytes(const Field& field) {
  const Index elements = field.kind != Field::Kind::open        ? field.width()
                         : field.order == Field::Order::columns ? field.width() * round_up(field.grid, 32)
                                                                : field.width() * field.grid;
  return static_cast<std::size_t>(elements) * bytes_of(field.dtype);
}

// The first `rows` rows of a chunk of an open field, row-major [rows][width] whatever the order.
std::vector<std::byte> open_rows(const Field& field, const Buffer& buffer, Index rows) {
  const std::size_t element = bytes_of(field.dtype);
  const Index width = field.width(), stride = open_stride(field);
  std::vector<std::byte> all(static_cast<std::size_t>(rows * width) * element);
  const auto* data = buffer.as<std::byte>();
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < width; ++c) {
      const Index from = field.order == Field::Order::columns ? c * stride + r : r * stride + c;
      std::memcpy(&all[static_cast<std::size_t>(r * width + c) * element],
                  data + static_cast<std::size_t>(from) * element, element);
    }
  return all;
}

// Rows [first, first + rows) of the chunk; null values = zeros.
void put_open_rows(const Field& field, Buffer& buffer, Index first, Index rows, const std::byte* values) {
  const std::size_t element = bytes_of(field.dtype);
  const Index width = field.width(), stride = open_stride(field);
  auto* data = buffer.as<std::byte>();
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < width; ++c) {
      const Index to =
          field.order == Field::Order::columns ? c * stride + first + r : (first + r) * stride + c;
      std::byte* place = data + static_cast<std::size_t>(to) * element;
      if (values)
        std::memcpy(place, values + static_cast<std::size_t>(r * width + c) * element, element);
      else
        std::memset(place, 0, element);
    }
}

// A gridded field's whole value, as it is saved when the chunk is complete.
std::vector<std::byte> whole_value(const Field& field, const Buffer& buffer) {
  if (field.kind == Field::Kind::open) return open_rows(field, buffer, field.grid);
  const auto* data = buffer.as<std::byte>();
  return {data, data + value_bytes(field)};
}

void fill_initial(const Field& field, Buffer& buffer) {
  buffer.zero();
  if (field.initial.empty()) return;
  assert(static_cast<Index>(field.initial.size()) == field.width());
  if (field.dtype == DType::f64)
    std::copy(field.initial.begin(), field.initial.end(), buffer.as<double>());
  else
    std::copy(field.initial.begin(), field.initial.end(), buffer.as<float>());
}

}  // namespace

State::State(std::span<const Field> fields, Index depth) : count_(fields.size()), depth_(depth) {
  auto copy = std::shared_ptr<Field[]>(new Field[fields.size()]);
  std::copy(fields.begin(), fields.end(), copy.get());
  fields_ = std::move(copy);
  logs_.resize(count_);
  values_.resize(count_);
  for (std::size_t i = 0; i < count_; ++i) {
    const Field& field = fields_[i];
    if (gridded(field)) {
      assert(field.grid > 0 && (grid_ == 0 || grid_ == field.grid));
      grid_ = field.grid;
    }
    if (field.kind == Field::Kind::log) {
      logs_[i] = Log(field, depth_);
    } else {
      values_[i] = std::make_shared<Buffer>(value_bytes(field));
      if (field.kind != Field::Kind::open) fill_initial(field, *values_[i]);
    }
  }
}

void* State::writable(Index field, [[maybe_unused]] Field::Kind kind) {
  const auto i = static_cast<std::size_t>(field);
  assert(i < count_ && fields_[i].kind == kind);
  if (values_[i].use_count() > 1) values_[i] = std::make_shared<Buffer>(*values_[i]);
  return values_[i]->as<std::byte>();
}

const void* State::readable(Index field) const {
  const auto i = static_cast<std::size_t>(field);
  assert(i < count_ && fields_[i].kind != Field::Kind::log);
  return values_[i]->as<std::byte>();
}

Log& State::log(Index field) {
  assert(fields_[static_cast<std::size_t>(field)].kind == Field::Kind::log);
  return logs_[static_cast<std::size_t>(field)];
}

const Log& State::log(Index field) const {
  assert(fields_[static_cast<std::size_t>(field)].kind == Field::Kind::log);
  return logs_[static_cast<std::size_t>(field)];
}

const void* State::readable_past(Index field, Index boundary) const {
  const Kept* chunk = kept(boundary);
  assert(chunk && chunk->values[static_cast<std::size_t>(field)]);
  return chunk->values[static_cast<std::size_t>(field)]->as<std::byte>();
}

const State::Kept* State::kept(Index boundary) const {
  const auto found =
      std::find_if(kept_.begin(), kept_.end(), [&](const Kept& k) { return k.boundary == boundary; });
  return found == kept_.end() ? nullptr : &*found;
}

void State::trim_kept(Index position) {
  // A rollback may lead to position - depth, and reads go on from there.
  const auto needed = [&](Index boundary) {
    return position - boundary < depth_ || memory_.covers(boundary, position - depth_);
  };
  while (!kept_.empty() && !needed(kept_.front().boundary)) kept_.pop_front();
}

std::vector<Index> State::past_boundaries(Index position) const {
  std::vector<Index> all;
  for (Index b = grid_ > 0 ? position / grid_ * grid_ : 0; b > 0 && memory_.covers(b, position); b -= grid_)
    all.push_back(b);
  std::reverse(all.begin(), all.end());
  return all;
}

bool State::remembers(Index position) const {
  const std::vector<Index> all = past_boundaries(position);
  return all.empty() || kept(all.front());
}

void State::remember(const Memory& memory) {
  memory_ = memory;
  trim_kept(position_);
}

void State::before_fold(Index boundary, Index run_end) {
  if (!keeps(boundary, run_end)) return;
  trim_kept(boundary);
  while (!kept_.empty() && kept_.back().boundary >= boundary) kept_.pop_back();
  // The copy is what is put aside, so pointers a layer holds stay valid.
  Kept kept{boundary, std::vector<std::shared_ptr<Buffer>>(count_)};
  for (std::size_t i = 0; i < count_; ++i)
    if (gridded(fields_[i])) kept.values[i] = std::make_shared<Buffer>(*values_[i]);
  kept_.push_back(std::move(kept));
}

void State::advance(Index position) {
  position_ = position;
  trim_kept(position_);
  for (Log& log : logs_) log.trim();
}

Index State::fill_hole(Index to) {
  assert(to >= position_);
  if (grid_ == 0) return position_ = to;
  const Index first = position_ % grid_;
  const Index last = std::min(to, position_ - first + grid_);
  for (std::size_t i = 0; i < count_; ++i)
    if (fields_[i].kind == Field::Kind::open)
      set_open_rows(static_cast<Index>(i), first, last - position_, nullptr);
  return position_ = last;
}

bool State::can_rollback(Index tokens) const {
  const Index target = position_ - tokens;
  if (tokens == 0) return true;
  if (target < floor_ || !remembers(target)) return false;
  for (std::size_t i = 0; i < count_; ++i) {
    const Field& field = fields_[i];
    if (field.kind == Field::Kind::running) return false;
    if (field.kind == Field::Kind::log && field.window > 0 &&
        logs_[i].first_held() > std::max(target - field.window + 1, Index{0}))
      return false;
  }
  if (grid_ == 0) return true;
  const Index start = target / grid_ * grid_;
  if (start == position_ / grid_ * grid_) return true;
  return kept(start + grid_);
}

void State::rollback(Index tokens) {
  assert(can_rollback(tokens));
  const Index target = position_ - tokens;
  if (grid_ > 0 && target / grid_ != position_ / grid_) {
    const Index start = target / grid_ * grid_;
    while (kept_.back().boundary != start + grid_) kept_.pop_back();
    for (std::size_t i = 0; i < count_; ++i)
      if (kept_.back().values[i]) values_[i] = kept_.back().values[i];
    kept_.pop_back();
  }
  for (std::size_t i = 0; i < count_; ++i)
    if (fields_[i].kind == Field::Kind::log) logs_[i].truncate(target);
  position_ = target;
}

void State::reset() {
  const Memory memory = memory_;
  *this = State(fields(), depth_);
  memory_ = memory;
}

void State::reset_before(Index position, Logs logs) {
  for (std::size_t i = 0; i < count_; ++i) {
    const Field& field = fields_[i];
    const auto index = static_cast<Index>(i);
    if (field.kind == Field::Kind::anchor || field.kind == Field::Kind::running) {
      writable(index, field.kind);
      fill_initial(field, *values_[i]);
    } else if (field.kind == Field::Kind::open) {
      set_open_rows(index, 0, position % grid_, nullptr);
    } else if (logs == Logs::hide) {
      logs_[i].hide_before(position);
    }
  }
  overwrite(position);
  const std::vector<Index> boundaries = past_boundaries(position);
  if (boundaries.empty()) return;
  std::vector<std::shared_ptr<Buffer>> born(count_);
  for (std::size_t i = 0; i < count_; ++i)
    if (gridded(fields_[i])) {
      born[i] = std::make_shared<Buffer>(value_bytes(fields_[i]));
      fill_initial(fields_[i], *born[i]);
    }
  for (const Index boundary : boundaries) kept_.push_back({boundary, born});
}

void State::overwrite(Index position) {
  floor_ = position;
  kept_.clear();
}

std::size_t State::bytes() const {
  std::size_t total = 0;
  for (std::size_t i = 0; i < count_; ++i) total += values_[i] ? values_[i]->bytes() : logs_[i].bytes();
  for (const Kept& kept : kept_)
    for (const auto& value : kept.values) total += value ? value->bytes() : 0;
  return total;
}

std::size_t State::copy_bytes() const {
  std::size_t total = 0;
  for (std::size_t i = 0; i < count_; ++i) total += values_[i] ? values_[i]->bytes() : logs_[i].copy_bytes();
  for (const Kept& kept : kept_)
    for (const auto& value : kept.values) total += value ? value->bytes() : 0;
  return total;
}

std::size_t State::predicted_bytes(std::span<const Field> fields, Index position, Index depth) {
  std::size_t total = 0, gridded_bytes = 0;
  Index grid = 0;
  for (const Field& field : fields) {
    if (field.kind == Field::Kind::log) {
      total += Log(field, depth).predicted_bytes(position);
      continue;
    }
    total += value_bytes(field);
    if (!gridded(field)) continue;
    grid = field.grid;
    gridded_bytes += value_bytes(field);
  }
  if (grid == 0) return total;
  const Index kept = position / grid - std::max<Index>(position - depth, 0) / grid;
  return total + static_cast<std::size_t>(kept) * gridded_bytes;
}

void State::set_open_rows(Index index, Index first, Index rows, const std::byte* values) {
  writable(index, Field::Kind::open);
  const auto i = static_cast<std::size_t>(index);
  put_open_rows(fields_[i], *values_[i], first, rows, values);
}

std::vector<Field> State::saved_fields(Index position) const {
  std::vector<Field> all(fields().begin(), fields().end());
  for (const Index boundary : past_boundaries(position))
    for (const Field& field : fields()) {
      if (!gridded(field)) continue;
      Field past = field;
      past.name = cat(field.name, "@", boundary);
      past.kind = Field::Kind::anchor;
      past.order = Field::Order::rows;
      if (field.kind == Field::Kind::open) past.shape = {field.grid, field.width()};
      all.push_back(std::move(past));
    }
  return all;
}

State::Image State::image(LogRows rows) const {
  Image image;
  image.position = position_;
  for (std::size_t i = 0; i < count_; ++i) {
    const Field& field = fields_[i];
    Image::Item item;
    item.name = field.name;
    if (field.kind == Field::Kind::log) {
      item.log_end = logs_[i].end();
      item.present = logs_[i].present();
      if (rows == LogRows::all || field.window > 0) item.pieces = logs_[i].pieces();
    } else if (field.kind == Field::Kind::open) {
      item.bytes = open_rows(field, *values_[i], position_ % grid_);
    } else {
      const auto* data = values_[i]->as<std::byte>();
      item.bytes.assign(data, data + value_bytes(field));
    }
    image.items.push_back(std::move(item));
  }
  for (const Index boundary : past_boundaries(position_)) {
    const Kept* chunk = kept(boundary);
    assert(chunk);
    for (std::size_t i = 0; i < count_; ++i)
      if (gridded(fields_[i])) {
        Image::Item item;
        item.name = cat(fields_[i].name, "@", boundary);
        item.bytes = whole_value(fields_[i], *chunk->values[i]);
        image.items.push_back(std::move(item));
      }
  }
  return image;
}

namespace {

// Everything a damaged or foreign image could get wrong, checked before anything is written.
void check_item(const Field& field, const State::Image::Item& item, Index position) {
  if (item.name != field.name)
    fail("the saved state has field '", item.name, "' where '", field.name, "' is expected");
  const std::size_t row = static_cast<std::size_t>(field.width()) * bytes_of(field.dtype);
  if (field.kind != Field::Kind::log) {
    const std::size_t want =
        field.kind == Field::Kind::open ? row * static_cast<std::size_t>(position % field.grid) : row;
    if (item.bytes.size() != want)
      fail("saved field '", field.name, "' has ", item.bytes.size(), " bytes, expected ", want);
    return;
  }
  if (item.log_end < 0) fail("saved log '", field.name, "' ends at ", item.log_end);
  Index last = 0;
  for (const Log::Range& range : item.present) {
    if (range.begin < last || range.end <= range.begin || range.end > item.log_end)
      fail("saved log '", field.name, "' has a range [", range.begin, ", ", range.end, ") out of order");
    last = range.end;
  }
  if (item.log_end > position)
    fail("saved log '", field.name, "' ends at ", item.log_end, ", after position ", position);
  Index end = 0;
  for (const Log::Piece& piece : item.pieces) {
    const Index rows = piece.range.end - piece.range.begin;
    if (piece.range.begin < end || rows <= 0 || piece.range.end > item.log_end ||
        piece.rows.size() != row * static_cast<std::size_t>(rows))
      fail("saved log '", field.name, "' has a damaged piece [", piece.range.begin, ", ", piece.range.end,
           ")");
    end = piece.range.end;
  }
}

// The first position of `range` whose row no piece has; range.end if there is none.
Index first_not_in(const std::vector<Log::Piece>& pieces, const Log::Range& range) {
  Index at = range.begin;
  for (const Log::Piece& piece : pieces)
    if (piece.range.begin <= at && at < piece.range.end) at = piece.range.end;
  return std::min(at, range.end);
}

}  // namespace

void State::restore(const Image& image, const State* later) {
  if (image.position < 0) fail("the saved state has position ", image.position);
  const std::vector<Field> saved = saved_fields(image.position);
  if (image.items.size() != saved.size())
    fail("the saved state has ", image.items.size(), " fields, expected ", saved.size());
  for (std::size_t i = 0; i < saved.size(); ++i) check_item(saved[i], image.items[i], image.position);
  reset();
  position_ = floor_ = image.position;
  for (std::size_t i = 0; i < count_; ++i) {
    const Field& field = fields_[i];
    const Image::Item& item = image.items[i];
    if (field.kind == Field::Kind::log && field.window == 0 && later) {
      if (!logs_[i].restore_prefix(later->logs_[i], item.log_end, item.present))
        fail("saved log '", field.name, "' shows rows that the later state does not have");
    } else if (field.kind == Field::Kind::log)
      logs_[i].restore(item.log_end, item.present, item.pieces);
    else if (field.kind == Field::Kind::open)
      set_open_rows(static_cast<Index>(i), 0, position_ % grid_, item.bytes.data());
    else
      std::memcpy(values_[i]->as<std::byte>(), item.bytes.data(), item.bytes.size());
    // What a log shows must be there: a piece may be missing from a damaged file.
    if (field.kind == Field::Kind::log && !(field.window == 0 && later))
      for (const Log::Range& range : logs_[i].logical())
        if (const Index p = first_not_in(item.pieces, range); p < range.end)
          fail("saved log '", field.name, "' lacks the row at position ", p);
  }
  restore_past(std::span(image.items).subspan(count_));
}

bool State::shows_rows_of(const State& earlier) const {
  for (std::size_t i = 0; i < count_; ++i)
    if (fields_[i].kind == Field::Kind::log && fields_[i].window == 0 &&
        !logs_[i].shows(earlier.logs_[i].present()))
      return false;
  return true;
}

void State::restore_past(std::span<const Image::Item> items) {
  for (const Index boundary : past_boundaries(position_)) {
    kept_.push_back({boundary, std::vector<std::shared_ptr<Buffer>>(count_)});
    for (std::size_t i = 0; i < count_; ++i) {
      if (!gridded(fields_[i])) continue;
      auto& value = kept_.back().values[i] = std::make_shared<Buffer>(value_bytes(fields_[i]));
      if (fields_[i].kind == Field::Kind::open)
        put_open_rows(fields_[i], *value, 0, grid_, items.front().bytes.data());
      else
        std::memcpy(value->as<std::byte>(), items.front().bytes.data(), items.front().bytes.size());
      items = items.subspan(1);
    }
  }
}

std::string State::digest() const {
  Digest digest;
  const Image all = image();
  digest.add(&all.position, sizeof all.position);
  for (const Image::Item& item : all.items) {
    digest.add(item.name);
    digest.add(item.bytes.data(), item.bytes.size());
    for (const Log::Piece& piece : item.pieces) {
      digest.add(&piece.range, sizeof piece.range);
      digest.add(piece.rows.data(), piece.rows.size());
    }
  }
  return digest.hex();
}

bool State::equal(const State& other) const {
  const Image a = image(), b = other.image();
  if (a.position != b.position || a.items.size() != b.items.size()) return false;
  for (std::size_t i = 0; i < a.items.size(); ++i) {
    const auto &x = a.items[i], &y = b.items[i];
    if (x.name != y.name || x.bytes != y.bytes || x.pieces.size() != y.pieces.size()) return false;
    for (std::size_t p = 0; p < x.pieces.size(); ++p)
      if (x.pieces[p].range != y.pieces[p].range || x.pieces[p].rows != y.pieces[p].rows) return false;
  }
  return true;
}

}  // namespace plait
