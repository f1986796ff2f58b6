// The registration table: one row per kind.
#include "layers/attention/global_pathway.h"
#include "layers/attention/latent_attention.h"
#include "layers/attention/polynomial_attention.h"
#include "layers/attention/polysketch_attention.h"
#include "layers/attention/power_retention.h"
#include "layers/attention/sinkhorn_attention.h"
#include "layers/attention/softmax_attention.h"
#include "layers/attention/softmax_free_attention.h"
#include "layers/blocks/add.h"
#include "layers/blocks/embedding.h"
#include "layers/blocks/gated_mlp.h"
#include "layers/blocks/head.h"
#include "layers/blocks/layer_norm.h"
#include "layers/blocks/normalization_equivariance.h"
#include "layers/blocks/rms_norm.h"
#include "layers/blocks/scale.h"
#include "layers/blocks/short_convolution.h"
#include "layers/recurrent/based.h"
#include "layers/recurrent/cosformer.h"
#include "layers/recurrent/delta_net.h"
#include "layers/recurrent/gated_delta_net.h"
#include "layers/recurrent/gated_linear_attention.h"
#include "layers/recurrent/linear_attention.h"
#include "layers/recurrent/mamba2.h"
#include "layers/recurrent/mesa_net.h"
#include "layers/recurrent/nats_l.h"
#include "layers/recurrent/path_attention.h"
#include "layers/recurrent/rebased.h"
#include "layers/recurrent/ttt_linear.h"
#include "layers/recurrent/wall_attention.h"
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
  registry.add(normalization_equivariance_kind());
  registry.add(head_kind());
  registry.add(softmax_attention_kind());
  registry.add(latent_attention_kind());
  registry.add(sinkhorn_attention_kind());
  registry.add(softmax_free_attention_kind());
  registry.add(global_pathway_kind());
  registry.add(polynomial_attention_kind());
  registry.add(polysketch_attention_kind());
  registry.add(power_retention_kind());
  registry.add(linear_attention_kind());
  registry.add(cosformer_kind());
  registry.add(based_kind());
  registry.add(rebased_kind());
  registry.add(gated_linear_attention_kind());
  registry.add(delta_net_kind());
  registry.add(gated_delta_net_kind());
  registry.add(mamba2_kind());
  registry.add(mesa_net_kind());
  registry.add(ttt_linear_kind());
  registry.add(path_attention_kind());
  registry.add(wall_attention_kind());
  registry.add(nats_l_kind());
  return registry;
}

}  // namespace

const Registry& Registry::builtin() {
  static const Registry registry = make_builtin();
  return registry;
}

Isa resolve_isa(Isa isa) { return resolve(isa); }

}  // namespace plait
