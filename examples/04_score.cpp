// Scores candidates for a user with the model of a finished run: two pages of items, the user computed once.
//
//   build/examples/04_score RUN USER ITEM...
#include "mixrec/train/serve/scorer.h"

#include <cstdio>

using namespace mixrec;

int main(int argc, char** argv) {
  if (argc < 4) return std::fprintf(stderr, "usage: 04_score RUN USER ITEM...\n"), 2;
  const Scorer scorer(argv[1]);
  ScoreRequest request{.user = argv[2]};
  for (int i = 3; i < argc; ++i) request.candidates.emplace_back(argv[i]);
  request.history = {argv[3],
                     argv[argc - 1]};  // ids alone; events may also carry times, signals and features

  for (const char* page : {"first page", "second page"}) {
    const Scores scores =
        scorer.score(request, request.user + "@today");  // the key under which the user is kept
    for (size_t c = 0; c < scores.candidates(); ++c)
      std::printf("%s: item %s %.4f\n", page, request.candidates[c].item.c_str(), scores(c));
  }
  std::printf("users found in the cache: %lld\n", static_cast<long long>(scorer.cache_stats().hits));
}
