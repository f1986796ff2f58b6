// State is declared data, anchored on a grid (architecture section 1, idea 3). A layer declares fields; copy
// (= fork), save, compare, size, reset, digest and rollback are written here once for all layers.
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/arena.h"
#include "runtime/base/tensor.h"
#include "runtime/base/view.h"

namespace plait {

struct Field {
  enum class Kind {
    anchor,   // the whole as of the last grid boundary (position rounded down to a multiple of `grid`)
    open,     // one row per token since that boundary
    running,  // the whole at the current position
    log,      // one row per token, append-only, in pages that forks share
  };
  // How rows of `open` and `log` fields lie in their chunk or page of n tokens: rows = [n][width];
  // columns = [width][n rounded up to 32], so that the tokens are the columns of a product's panel.
  enum class Order { rows, columns };

  std::string name;  // "S", "k", "conv"
  Kind kind;
  Shape shape;               // anchor, running: the whole; open, log: one token's row
  DType dtype = DType::f32;  // f32, or f64 for sums of log decays; log: bf16 and f16 as well
  Order order = Order::rows;
  Index grid = 0;    // anchor, open: boundary distance (all gridded fields of a layer share it)
  Index window = 0;  // log: latest rows a reader may still need, the current one included (0 = all)
  Index sinks = 0;   // log: first rows kept besides the window
  std::vector<float> initial = {};  // anchor, running: value at birth; empty = zeros

  Index width() const { return element_count(shape); }
};

// An append-only sequence of rows with absolute positions. Full pages are immutable and shared between
// copies; the last page belongs to one state and is copied on its first write after a fork. Rows that were
// skipped (a layer.skip edit) leave holes; rows older than the window may be gone.
class Log {
 public:
  struct Range {
    Index begin, end;
    bool operator==(const Range&) const = default;
  };

  Log() = default;
  // depth: rows kept beyond the window for rollbacks.
  explicit Log(const Field& field, Index depth = 0);

  Index page_rows() const { return page_rows_; }  // 64, or less for short windows; a power of two
  Index width() const { return width_; }
  DType dtype() const { return dtype_; }
  Field::Order order() const { return columns_ ? Field::Order::columns : Field::Order::rows; }
  Index end() const { return end_; }  // one past the last appended position

  // Rows [position, position + rows.rows) become rows.rows new rows; position >= end(), a gap is a hole.
  // Rows of a narrow log are rounded to its type here, once, to nearest even.
  void append(Index position, View<const float> rows);
  void append(Index position, View<const double> rows);
  // As append, for rows that nobody reads before the state advances: rows that the window will have passed by
  // then are not copied.
  void append_passed(Index position, View<const float> rows);

  // The page that holds `position`: order rows: element (p, c) at [(p % page_rows) * width + c]; order
  // columns: at [c * page_rows + p % page_rows]. Null where no row of the page is held. Rows of holes are
  // zeros, never NaN.
  template <class T = float>
  const T* page(Index position) const {
    return static_cast<const T*>(page_bytes(position));
  }
  // Distance between tokens' rows (order rows) or between channels (order columns), in elements.
  Index stride() const { return columns_ ? page_rows_ : width_; }
  // One row of an order-rows log; null if not held.
  template <class T = float>
  const T* row(Index position) const {
    const T* p = page<T>(position);
    return p ? p + (position & (page_rows_ - 1)) * width_ : nullptr;
  }
  // What exists, ascending, disjoint: [0, end) unless something was skipped. Not clipped by the window.
  const std::vector<Range>& present() const { return present_; }

  void truncate(Index end);          // rollback: forget rows at and after `end`
  void hide_before(Index position);  // rows before `position` count as a hole
  void
  trim();  // release the pages that only hold rows before the window and the depth, except those of the sinks
  Index first_held() const;   // first position after the sinks whose page is held
  std::size_t bytes() const;  // of pages held, shared ones counted in full
  // Rows a reader at end() may still see: the window and the sinks, without holes. Digest, compare and save
  // cover these.
  std::vector<Range> logical() const;
  // Save and restore: the logical rows, each piece [rows][width].
  struct Piece {
    Range range;
    std::vector<std::byte> rows;
  };
  std::vector<Piece> pieces() const;
  void restore(Index end, std::vector<Range> present, const std::vector<Piece>& pieces);
  // Becomes what `later`, a log without a window, was when it ended at `end` and showed `present`; shares its
  // pages. False if `later` does not show all of that any more.
  bool restore_prefix(const Log& later, Index end, std::vector<Range> present);
  bool shows(const std::vector<Range>& present) const;  // all of these rows exist
  // Bytes a copy costs beside the log it was taken from, once that has moved on: at most the pages held, and
  // of a log without a window the last page only.
  std::size_t copy_bytes() const;
  // bytes() of such a log that ends at `end` and had no row skipped.
  std::size_t predicted_bytes(Index end) const;

 private:
  struct Page;
  const void* page_bytes(Index position) const;
  std::byte* writable_page(Index page);
  template <class Stored, class T>
  void write(Index position, View<const T> rows);
  template <class Stored>
  void read(Range range, Stored* rows) const;
  // f(Stored{}) for the type that has the log's number of bytes.
  template <class F>
  void as_stored(const F& f) const;
  void add_range(Index begin, Index end);

  void drop_before(Index position);

  Index width_ = 0, page_rows_ = 64, window_ = 0, sinks_ = 0, depth_ = 0, end_ = 0, first_page_ = 0;
  DType dtype_ = DType::f32;
  std::size_t element_ = sizeof(float);
  bool columns_ = false;
  std::deque<std::shared_ptr<Page>> pages_;        // pages first_page_, first_page_ + 1, ...
  std::vector<std::shared_ptr<Page>> sink_pages_;  // pages 0, 1, ... that hold sinks once they left pages_
  std::vector<Range> present_;
};

// The state of one node for one sequence: a value; a copy is a fork (anchors and running values are copied on
// write, pages are shared).
class State {
 public:
  State() = default;
  // depth: tokens a rollback may undo without running the model (0 unless the stream declares more).
  explicit State(std::span<const Field> fields, Index depth = 0);

  std::span<const Field> fields() const { return {fields_.get(), count_}; }
  // One past the last position absorbed. A layer sees segment.position >= position(); the difference is a
  // hole.
  Index position() const { return position_; }
  Index grid() const { return grid_; }  // 0 when no field is gridded

  // For layers. Pointers are 64-byte aligned and valid until the next call of a non-const member.
  template <class T = float>
  T* anchor(Index field) {
    return static_cast<T*>(writable(field, Field::Kind::anchor));
  }
  // order rows: row of position p at [(p % grid) * width]; order columns: element (p, c) at [c * stride + p %
  // grid], stride = round_up(grid, 32). Rows at and after the current position hold garbage (NaN in debug
  // builds).
  template <class T = float>
  T* open(Index field) {
    return static_cast<T*>(writable(field, Field::Kind::open));
  }
  template <class T = float>
  T* running(Index field) {
    return static_cast<T*>(writable(field, Field::Kind::running));
  }
  Log& log(Index field);
  const Log& log(Index field) const;
  template <class T = float>
  const T* peek(Index field) const {  // anchor, open or running, read only
    return static_cast<const T*>(readable(field));
  }

  // A layer calls this right before it folds the open rows of the chunk that ends at `boundary` into the
  // anchor, with the end of the rows it is about to run: states with a rollback depth keep a copy of what the
  // fold overwrites.
  void before_fold(Index boundary, Index run_end);
  // Whether before_fold will put something aside: then no fold may have begun before it is called.
  bool keeps(Index boundary, Index run_end) const {
    return run_end - boundary < depth_ || memory_.covers(boundary, boundary);
  }
  // A gridded field as it was when the chunk that ends at `boundary` was complete and not folded, open rows
  // in the field's order; the state's memory covers that chunk.
  template <class T = float>
  const T* past(Index field, Index boundary) const {
    return static_cast<const T*>(readable_past(field, boundary));
  }

  // For the executor and streams.
  // What reads of earlier states (state/stale) may still ask for: at position p, the states after the rows
  // from max(from, p - rows) on, until p reaches `end` (-1 = no end). Part of the state as long as that
  // lasts: compared, digested, saved.
  struct Memory {
    Index rows = 0, from = 0, end = -1;
    // Whether that is so at position `at` for a row of the chunk that ends at `boundary`.
    bool covers(Index boundary, Index at) const {
      return rows > 0 && (end < 0 || at < end) && boundary > std::max(from, at - rows);
    }
  };
  // Declares it, at or before the row `from` or right before a restore.
  void remember(const Memory& memory);
  void advance(Index position);  // after a layer ran: the new position; trims windowed logs
  // Gridded fields: open rows of skipped positions [position(), to) become zeros, which every core treats as
  // neutral rows (no decay, no erase, no write). Stops at the next boundary; returns the position reached.
  // See Layer::fold.
  Index fill_hole(Index to);
  void set_position(Index position) { position_ = position; }
  bool can_rollback(Index tokens) const;  // within the depth, without running the model
  void rollback(Index tokens);            // asserts can_rollback
  void reset();                           // as born
  // The state.reset(t) intervention: anchors and running fields take their initial values, in the memory of
  // earlier states too, open rows before `position` become neutral zeros, logs hide rows before `position`
  // when hide_logs.
  enum class Logs { keep, hide };
  void reset_before(Index position, Logs logs);
  // For layers whose rows change what open rows before `position` meant (a state edited after every token):
  // a rollback before it must run the model.
  void overwrite(Index position);
  std::size_t bytes() const;
  // Bytes a copy costs beside the state it was taken from, once that has moved on.
  std::size_t copy_bytes() const;
  // SHA-256 over logical contents: fields in order, open rows up to the position, held log rows.
  std::string digest() const;
  bool equal(const State& other) const;  // the same logical contents, bit for bit
  // bytes() of a state of these fields at `position`, by arithmetic alone: no row was skipped, none is kept
  // for earlier reads. depth as given to the constructor.
  static std::size_t predicted_bytes(std::span<const Field> fields, Index position, Index depth = 0);

  // Save and restore, field by field.
  struct Image {
    Index position = 0;
    struct Item {
      std::string name;
      std::vector<std::byte> bytes;     // anchor, running; open: rows up to the position (order as declared)
      Index log_end = 0;                // log
      std::vector<Log::Range> present;  // log
      std::vector<Log::Piece> pieces;   // log
    };
    std::vector<Item> items;  // one per field, in the order of saved_fields
  };
  // Which logs' rows an image holds: those without a window only grow, so that an earlier state's are the
  // first of a later one's.
  enum class LogRows { all, windowed };
  Image image(LogRows rows = LogRows::all) const;
  // The fields, and after them the gridded ones once more for each chunk the memory covers, as anchors named
  // FIELD@BOUNDARY; open rows there are [grid, width].
  std::vector<Field> saved_fields() const { return saved_fields(position_); }
  void restore(const Image& image) { restore(image, nullptr); }  // throws Error when names or sizes disagree
  // Whether this state, a later one, still shows all rows of the earlier one's logs without a window. Then an
  // image of the earlier one's windowed rows is enough beside this one: `later` below is the same node's
  // state at or after the image's position.
  bool shows_rows_of(const State& earlier) const;
  void restore(const Image& image, const State& later) { restore(image, &later); }

 private:
  void* writable(Index field, Field::Kind kind);
  const void* readable(Index field) const;
  const void* readable_past(Index field, Index boundary) const;
  std::vector<Field> saved_fields(Index position) const;
  void restore(const Image& image, const State* later);
  void restore_past(std::span<const Image::Item> items);  // after the fields, at their position
  void set_open_rows(Index field, Index first, Index rows, const std::byte* values);
  struct Kept {  // what a fold overwrote
    Index boundary;
    std::vector<std::shared_ptr<Buffer>> values;  // per field; null for logs and running
  };
  const Kept* kept(Index boundary) const;  // null if not held
  void trim_kept(Index position);          // those that no rollback and no read from there on needs
  // The ends of the chunks the memory covers at a position, ascending.
  std::vector<Index> past_boundaries(Index position) const;
  bool remembers(Index position) const;  // all of them are held
  std::shared_ptr<const Field[]> fields_;
  std::size_t count_ = 0;
  Index grid_ = 0, depth_ = 0, position_ = 0;
  Index floor_ = 0;  // an intervention overwrote what a rollback before this position would need
  std::vector<std::shared_ptr<Buffer>> values_;  // anchor, open, running; shared until written
  std::vector<Log> logs_;                        // by field; unused entries are empty
  Memory memory_;
  std::deque<Kept> kept_;  // ascending, for rollbacks and for the memory
};

}  // namespace plait
