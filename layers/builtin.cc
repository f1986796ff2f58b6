// The registration table: one row per kind.
#include "layers/blocks/add.h"
#include "layers/blocks/embedding.h"
#include "layers/blocks/gated_mlp.h"
#include "layers/blocks/head.h"
#include "layers/blocks/layer_norm.h"
#include "layers/blocks/rms_norm.h"
#include "layers/blocks/scale.h"
#include "layers/blocks/short_convolution.h"
#include "runtime/kernels/kernels.h"
#include "runtime/run/registry.h"

namespace plait {
namespace {

Registry make_builtin() {
  Registry registry;
  registry.add(embedding_kind());
  registry.add(rms_norm_kind());
  registry.add(layer_norm_kind());
  registry.add(gated_mlp_kind());
  registry.add(short_convolution_kind());
  registry.add(add_kind());
  registry.add(scale_kind());
  registry.add(head_kind());
  return registry;
}

}  // namespace

const Registry& Registry::builtin() {
  static const Registry registry = make_builtin();
  return registry;
}

Isa resolve_isa(Isa isa) { return resolve(isa); }

}  // namespace plait
