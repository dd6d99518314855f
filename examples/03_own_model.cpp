// A model of your own, made of nn modules, with the whole command line of mixrec around it:
//
//   build/examples/03_own_model train --config examples/configs/simulated/interest.json --data FOLDER
#include "mixrec/models/model.h"
#include "mixrec/nn/attention.h"
#include "mixrec/nn/embedding.h"
#include "mixrec/nn/mlp.h"
#include "mixrec/ops/attention/attend.h"
#include "mixrec/ops/layout.h"
#include "mixrec/ops/request.h"
#include "mixrec/train/cli.h"

using namespace mixrec;

struct InterestOptions {
  int64_t width = 32;
  int64_t hidden = 128;

  void visit(OptionVisitor& v) {
    v.number("width", width, between(1, 4096), "of the question and of events");
    v.number("hidden", hidden, between(1, 65536), "of the MLP");
  }
};

// Target attention: the candidate's features ask one question of the history, the answer joins them in an MLP.
//
//   q = W_q e_item,  h_t = W_h s_t,  m = Σ_t softmax_t(q · h_t) h_t,  logits = MLP([e_user; e_item; m])
struct Interest : Module {
  FeatureEmbedding embedding;
  Linear query, event;
  MLP mlp;

  Interest(const FeatureSet& spec, const InterestOptions& o, Rng& rng)
      : embedding(spec, rng, {.table_deviation = .1}),
        query(embedding.candidate_width(), o.width, rng),
        event(embedding.event_width(0), o.width, rng),
        mlp({embedding.request_width() + embedding.candidate_width() + o.width, o.hidden,
             static_cast<int64_t>(spec.tasks.size())},
            rng) {}

  Tensor forward(const RequestBatch& batch, Pass& pass) const {
    const Tensor user =
        expand_by_request(embedding.requests(batch, pass.compute), batch.offsets, batch.candidates);
    const Tensor item = embedding.candidates(batch, pass.compute);
    const Tensor q = query.forward(item), h = event.forward(embedding.events(batch, 0, pass.compute));
    const Tensor m = attend(q.reshape({q.dim(0), 1, q.dim(1)}), h, batch.history(0).offsets, batch.offsets);
    return mlp.forward(concat({user, item, m.reshape(q.shape())}, 1));
  }

  void visit(Visitor& v) {
    v.module("embedding", embedding), v.module("query", query), v.module("event", event),
        v.module("mlp", mlp);
  }
};

int main(int argc, char** argv) {
  return cli(argc, argv,
             {model_entry<Interest, InterestOptions>("interest", "one attention query a candidate")});
}
