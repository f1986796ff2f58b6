#include "layers/recurrent/strengths.h"

#include "layers/recurrent/panels.h"
#include "layers/recurrent/rows.h"
#include "runtime/kernels/rowwise.h"

namespace plait {
namespace {

// Calls body(segment, head) for every head of every segment that carries edits.
template <class Body>
void for_each_edited(std::span<const Segment> segments, Index heads, Body&& body) {
  for (const Segment& segment : segments)
    if (segment.edits && !segment.edits->empty())
      for (Index h = 0; h < heads; ++h) body(segment, h);
}

View<float> head_of(const Segment& segment, View<float> all, Index heads, Index head) {
  if (!all.data) return {};
  const Index width = all.cols / heads;
  return rows_of(segment, all).slice_cols(head * width, width);
}

void fill(double value, View<float> rows) {
  if (rows.data) fill_rows(static_cast<float>(value), rows);
}

}  // namespace

void edit_strengths(std::span<const Segment> segments, const Strengths& strengths) {
  const Index heads = strengths.heads;
  for (const Segment& segment : segments) {
    if (strengths.match.data) fill_rows(0, rows_of(segment, strengths.match));
    segment.show(Site::decay, strengths.decay);
    segment.show(Site::write, strengths.write);
  }
  for_each_edited(segments, heads, [&](const Segment& segment, Index head) {
    const View<float> decay = head_of(segment, strengths.decay, heads, head);
    const View<float> erase = head_of(segment, strengths.erase, heads, head);
    const View<float> write = head_of(segment, strengths.write, heads, head);
    const View<float> match = head_of(segment, strengths.match, heads, head);
    const auto edit = [&](Site site, Operator op) { return segment.edit(site, op, head); };
    if (const Edit* e = edit(Site::write, Operator::constant)) {
      fill(value_of(*e, head), erase);
      fill(value_of(*e, head), write);
    }
    if (const Edit* e = edit(Site::decay, Operator::constant)) fill_values(*e, heads, head, decay);
    if (edit(Site::decay, Operator::one)) fill(0, decay);
    if (edit(Site::decay, Operator::zero)) fill(kLowestLogDecay, decay);
    if (const Edit* e = edit(Site::erase, Operator::off))
      fill(e->norm_match ? 1 : 0, e->norm_match ? match : erase);
    const bool freeze = edit(Site::state, Operator::freeze);
    if (freeze) fill(0, decay);
    if (freeze || edit(Site::write, Operator::zero) || edit(Site::state, Operator::no_write) ||
        edit(Site::state, Operator::delete_write)) {
      fill(0, erase);
      fill(0, write);
    }
  });
}

void clear_heads(std::span<const Segment> segments, Site site, Operator op, Index heads, View<float> o) {
  for_each_edited(segments, heads, [&](const Segment& segment, Index head) {
    if (segment.edit(site, op, head)) fill_rows(0, head_of(segment, o, heads, head));
  });
}

void edit_reads(std::span<const Segment> segments, Index heads, View<float> o) {
  clear_heads(segments, Site::state, Operator::zero, heads, o);
  clear_heads(segments, Site::state, Operator::no_read, heads, o);
}

void edit_gates(std::span<const Segment> segments, Index heads, View<float> factors) {
  for (const Segment& segment : segments) segment.show(Site::gate, factors);
  for_each_edited(segments, heads, [&](const Segment& segment, Index head) {
    const View<float> own = head_of(segment, factors, heads, head);
    if (const Edit* e = segment.edit(Site::gate, Operator::mean, head)) fill_values(*e, heads, head, own);
    if (segment.edit(Site::gate, Operator::one, head)) fill_rows(1, own);
  });
}

void scale_heads(std::span<const Segment> segments, Index heads, View<float> y, const Compute& compute) {
  for_each_edited(segments, heads, [&](const Segment& segment, Index head) {
    if (const Edit* e = segment.edit(Site::head, Operator::scale, head)) {
      const View<float> rows = head_of(segment, y, heads, head);
      scale_rows(rows, static_cast<float>(value_of(*e, head)), rows, compute);
    }
  });
}

void normalise_heads(std::span<const Segment> segments, Index heads, View<float> x, float eps, float factor,
                     const Compute& compute) {
  const Index width = x.cols / heads;
  for (const Segment& segment : segments) {
    const View<float> rows = rows_of(segment, x);
    if (!segment.edit(Site::qk_norm, Operator::off)) {
      l2_norm(rows, width, eps, factor, rows, compute);
      continue;
    }
    for (Index h = 0; h < heads; ++h) {
      const View<float> head = rows.slice_cols(h * width, width);
      if (segment.edit(Site::qk_norm, Operator::off, h))
        scale_rows(head, factor, head, compute);
      else
        l2_norm(head, width, eps, factor, head, compute);
    }
  }
}

std::vector<Segment> activated(std::span<const Segment> segments) {
  std::vector<Segment> kept;
  for (const Segment& segment : segments) {
    const Edit* edit = segment.edit(Site::conv, Operator::identity);
    if (!edit || !edit->drop_activation) kept.push_back(segment);
  }
  return kept;
}

SiteSpec decay_site(Index heads, Index channels) {
  return {Site::decay, {Operator::one, Operator::constant, Operator::zero}, heads, channels};
}
SiteSpec write_site(Index heads) { return {Site::write, {Operator::constant, Operator::zero}, heads}; }
SiteSpec erase_site(Index heads) { return {Site::erase, {Operator::off}, heads}; }
SiteSpec state_site(Index heads, Every finest) {
  SiteSpec site{Site::state,
                {Operator::zero, Operator::freeze, Operator::no_write, Operator::no_read,
                 Operator::delete_write, Operator::rank, Operator::noise, Operator::cast},
                heads,
                1,
                finest};
  if (finest == Every::token) site.operators.push_back(Operator::stale);
  return site;
}
SiteSpec conv_site() { return {Site::conv, {Operator::identity, Operator::current_tap}}; }
SiteSpec qk_norm_site(Index heads) { return {Site::qk_norm, {Operator::off}, heads}; }

}  // namespace plait
