#include "mixrec/train/train_state.h"

#include "mixrec/core/error.h"
#include "mixrec/core/printable.h"

#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <type_traits>
#include <utility>

namespace mixrec {

namespace {

struct Writer {
  Scalars scalars;

  void operator()(const char* name, const int64_t& value) { scalars[name] = std::to_string(value); }
  void operator()(const char* name, const uint64_t& value) { scalars[name] = std::to_string(value); }
  void operator()(const char* name, const std::string& value) { scalars[name] = value; }
  void operator()(const char* name, const double& value) {
    char text[64];
    std::snprintf(text, sizeof text, "%a", value);  // hexadecimal: every bit survives
    scalars[name] = text;
  }
};

struct Reader {
  const Scalars& scalars;
  const std::string& path;

  const std::string& text(const char* name) const {
    const auto found = scalars.find(name);
    MR_CHECK(found != scalars.end(), path, " is not a checkpoint of a training run: it lacks ", name);
    return found->second;
  }
  template <class T, class Parse>
  void number(const char* name, T& to, const Parse& parse) const {
    const std::string& given = text(name);
    char* end = nullptr;
    errno = 0;
    to = parse(given.c_str(), &end);
    // strtoll and its like skip spaces and take a sign before an unsigned number.
    const bool starts_well = !given.empty() && !std::isspace(static_cast<unsigned char>(given[0])) &&
                             (given[0] != '-' || std::is_signed_v<T>);
    MR_CHECK(starts_well && *end == '\0' && end == given.c_str() + given.size(), path, ": ", name, " is '",
             printable(given), "', not a number");
    MR_CHECK(errno != ERANGE, path, ": ", name, " is '", printable(given), "', which is out of range");
  }
  void operator()(const char* name, int64_t& to) const {
    number(name, to, [](const char* from, char** end) { return std::strtoll(from, end, 10); });
  }
  void operator()(const char* name, uint64_t& to) const {
    number(name, to, [](const char* from, char** end) { return std::strtoull(from, end, 10); });
  }
  void operator()(const char* name, double& to) const {
    number(name, to, [](const char* from, char** end) { return std::strtod(from, end); });
  }
  void operator()(const char* name, std::string& to) const { to = text(name); }
};

}  // namespace

template <class V>
void TrainState::visit(V& v) {
  v("phase", phase), v("step", step), v("epoch", epoch), v("batch", batch), v("rng_offset", rng_offset);
  v("loss_sum", loss_sum), v("loss_steps", loss_steps);
  v("best_step", best_step), v("best_score", best_score), v("not_better", not_better);
  v("refit_steps", refit_steps), v("schedule_steps", schedule_steps), v("validation", validation);
  v("metrics_bytes", metrics_bytes);
  v("samples", samples), v("train_seconds", train_seconds), v("seconds", seconds);
}

void TrainState::check(const std::string& path) const {
  const auto within = [&](const char* name, auto value, auto least, auto most) {
    MR_CHECK(value >= least && value <= most, path, " is damaged: ", name, " is ", value,
             ", it must lie from ", least, " to ", most);
  };
  constexpr int64_t kMany = int64_t{1} << 53;
  constexpr double kHuge = std::numeric_limits<double>::max();
  within("phase", phase, int64_t{0}, static_cast<int64_t>(Phase::done));
  const std::pair<const char*, int64_t> counts[] = {{"step", step},
                                                    {"epoch", epoch},
                                                    {"batch", batch},
                                                    {"loss_steps", loss_steps},
                                                    {"best_step", best_step},
                                                    {"not_better", not_better},
                                                    {"refit_steps", refit_steps},
                                                    {"schedule_steps", schedule_steps},
                                                    {"metrics_bytes", metrics_bytes},
                                                    {"samples", samples}};
  for (const auto& [name, value] : counts) within(name, value, int64_t{0}, kMany);
  within("loss_sum", loss_sum, -kHuge, kHuge);
  within("best_score", best_score, -kHuge, kHuge);
  within("train_seconds", train_seconds, 0.0, kHuge);
  within("seconds", seconds, 0.0, kHuge);
  // What one number says of another.
  MR_CHECK(loss_steps <= step, path, " is damaged: loss_steps is ", loss_steps, " after step ", step);
  MR_CHECK(phase != static_cast<int64_t>(Phase::choosing) || best_step <= step, path,
           " is damaged: best_step is ", best_step, " after step ", step);
  MR_CHECK(phase != static_cast<int64_t>(Phase::refitting) || (refit_steps > 0 && step <= refit_steps), path,
           " is damaged: phase is 1, step is ", step, " and refit_steps is ", refit_steps);
  MR_CHECK(phase == static_cast<int64_t>(Phase::choosing) || step > 0 || refit_steps > 0, path,
           " is damaged: phase is ", phase, " before a first step");
}

Scalars TrainState::to_scalars() const {
  Writer writer;
  TrainState(*this).visit(writer);
  return writer.scalars;
}

TrainState TrainState::from_scalars(const Scalars& scalars, const std::string& path) {
  TrainState state;
  const Reader reader{scalars, path};
  state.visit(reader);
  state.check(path);
  return state;
}

}  // namespace mixrec
