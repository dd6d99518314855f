// Simulates a log whose best reachable AUC is known, and trains MixFormer on it.
//
//   build/examples/01_quickstart [FOLDER] [STEPS]
#include "mixrec/data/simulate/simulate.h"
#include "mixrec/models/unified/mixformer.h"
#include "mixrec/train/fit.h"

#include <cstdlib>
#include <iostream>

using namespace mixrec;

int main(int argc, char** argv) {
  const std::string folder = argc > 1 ? argv[1] : "build/quickstart";
  const SimulateReport log = simulate({.out = folder, .again = true, .rows = 60'000});
  const Dataset data = Dataset::open(find_schema(folder), folder);

  Rng rng(1);
  MixFormer model(data.spec(), {.heads = 4, .width = 32, .layers = 2, .table_deviation = .1}, rng);
  std::cout << summary(model);

  Config config;
  config.train.max_steps = argc > 2 ? std::atoi(argv[2]) : 300;
  const FitResult result = fit(model, data, {.config = config});
  std::cout << "AUC " << result.test[0].auc << ", UAUC " << result.test[0].user.mean << ", best possible "
            << log.test.bayes_auc() << "\n";
}
