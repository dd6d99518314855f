#include "mixrec/train/train_state.h"

#include "mixrec/core/error.h"

#include <cstdio>
#include <cstdlib>

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
    char* end = nullptr;
    to = parse(text(name).c_str(), &end);
    MR_CHECK(!text(name).empty() && *end == '\0', path, ": ", name, " is '", text(name), "', not a number");
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

Scalars TrainState::to_scalars() const {
  Writer writer;
  TrainState(*this).visit(writer);
  return writer.scalars;
}

TrainState TrainState::from_scalars(const Scalars& scalars, const std::string& path) {
  TrainState state;
  const Reader reader{scalars, path};
  state.visit(reader);
  return state;
}

}  // namespace mixrec
