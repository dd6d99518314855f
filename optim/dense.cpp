#include "mixrec/optim/dense.h"

#include "mixrec/autograd/meta.h"
#include "mixrec/core/copy.h"
#include "mixrec/core/error.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/optim/rules.h"

#include <algorithm>
#include <cmath>

namespace mixrec::optim {

namespace {

constexpr int64_t kAlignment = 64;  // bytes
constexpr int64_t kBlock = 4096;    // elements
constexpr int64_t kUpdateWork = 8;  // of one element, as parallel_for counts

std::vector<std::string> slot_names(const RuleOptions& rule) {
  if (rule.name == "sgd")
    return rule.momentum > 0 ? std::vector<std::string>{"momentum"} : std::vector<std::string>{};
  if (rule.name == "rmsprop") return {"square"};
  if (rule.name == "adagrad") return {"sum"};
  return {"m", "v"};
}

// use(make) where make(lr, weight_decay) is the rule at this step.
template <class T, class Use>
void with_rule(const RuleOptions& o, int64_t step, Use&& use) {
  const T eps = static_cast<T>(o.eps);
  if (o.name == "sgd" && o.momentum == 0) {
    use([](double lr, double decay) { return Sgd<T>{static_cast<T>(lr), static_cast<T>(decay)}; });
  } else if (o.name == "sgd") {
    const T momentum = static_cast<T>(o.momentum);
    const T own = o.nesterov ? T(1) : T(0), kept = o.nesterov ? momentum : T(1);
    use([=](double lr, double decay) {
      return Momentum<T>{static_cast<T>(lr), static_cast<T>(decay), momentum, own, kept};
    });
  } else if (o.name == "rmsprop") {
    const T kept = static_cast<T>(o.decay), fresh = static_cast<T>(1 - o.decay);
    use([=](double lr, double decay) {
      return RmsProp<T>{static_cast<T>(lr), static_cast<T>(decay), kept, fresh, eps};
    });
  } else if (o.name == "adagrad") {
    use([=](double lr, double decay) { return Adagrad<T>{static_cast<T>(lr), static_cast<T>(decay), eps}; });
  } else {
    const bool decoupled = o.name == "adamw";
    use([=](double lr, double decay) {
      Adam<T> rule = adam_rule<T>(o, lr, decay, decoupled);
      rule.correct(lr, AdamCorrection(o, step));
      return rule;
    });
  }
}

}  // namespace

DenseSet::DenseSet(std::vector<Trained> parameters, const RuleOptions& rule, MovingAverage average)
    : parameters_(std::move(parameters)), rule_(rule), average_(average) {
  if (parameters_.empty()) return;
  dtype_ = parameters_[0].value.dtype();
  const int64_t aligned = kAlignment / static_cast<int64_t>(size_of(dtype_));
  int64_t total = 0;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Trained& p = parameters_[i];
    MR_CHECK(p.value.dtype() == dtype_, "the parameter ", p.name, " is ", p.value.dtype(), " and ",
             parameters_[0].name, " is ", dtype_, ": one optimiser trains one dtype");
    offsets_.push_back(total);
    const int64_t count = p.value.numel();
    for (int64_t at = 0; at < count; at += kBlock) {
      blocks_.push_back({i, total + at, std::min(kBlock, count - at)});
    }
    total += (count + aligned - 1) / aligned * aligned;
  }
  values_ = zeros({total}, dtype_);
  gradients_ = zeros({total}, dtype_);
  if (average_.decay > 0) averages_ = zeros({total}, dtype_);
  for (size_t i = 0; i < slot_names(rule_).size(); ++i) {
    state_.push_back(full({total}, rule_.initial_accumulator, dtype_));
  }
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor& value = parameters_[i].value;
    const Tensor home = slice(values_, i);
    copy_into(home, value);
    value.rebind(home);
    autograd::leaf_meta(value)->grad_buffer = slice(gradients_, i);
  }
}

Tensor DenseSet::slice(const Tensor& flat, size_t parameter) const {
  const Shape& shape = parameters_[parameter].value.shape();
  return Tensor::view(flat.storage(), offsets_[parameter], shape, dense_strides(shape), dtype_);
}

void DenseSet::collect() {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Trained& p = parameters_[i];
    MR_CHECK(p.value.storage() == values_.storage() && p.value.offset() == offsets_[i], "the parameter ",
             p.name, " was moved after the optimiser was made; make the optimiser last");
    const Tensor grad = p.value.grad();
    const Tensor home = slice(gradients_, i);
    if (!grad.defined()) {
      home.detach().fill(0);
    } else if (grad.storage() != home.storage() || grad.offset() != home.offset()) {
      copy_into(home, grad);
    }
  }
}

double DenseSet::sum_of_squares() const {
  double sum = 0;
  if (parameters_.empty()) return sum;
  dispatch_real(dtype_, [&]<class T>() {
    const T* gradient = gradients_.data<const T>();
    chunked_reduce(static_cast<int64_t>(blocks_.size()), 1, kBlock, &sum,
                   [&](int64_t begin, int64_t end, double* partial) {
                     for (int64_t b = begin; b < end; ++b) {
                       const Block& block = blocks_[static_cast<size_t>(b)];
                       *partial += optim::sum_of_squares(block.count, gradient + block.begin);
                     }
                   });
  });
  return sum;
}

std::string DenseSet::first_not_finite() const {
  std::string name;
  if (parameters_.empty()) return name;
  dispatch_real(dtype_, [&]<class T>() {
    for (const Block& block : blocks_) {
      if (std::isfinite(optim::sum_of_squares(block.count, gradients_.data<const T>() + block.begin)))
        continue;
      name = parameters_[block.parameter].name;
      return;
    }
  });
  return name;
}

void DenseSet::update(int64_t step, double lr_factor, double gradient_scale) {
  if (parameters_.empty()) return;
  dispatch_real(dtype_, [&]<class T>() {
    update_as<T>(step, lr_factor, gradient_scale);
    if (average_.decay > 0) average_as<T>(step);
  });
  values_.bump_version();
}

template <class T>
void DenseSet::update_as(int64_t step, double lr_factor, double gradient_scale) {
  with_rule<T>(rule_, step, [&](auto make) {
    std::vector<decltype(make(0.0, 0.0))> rules;
    for (const Trained& p : parameters_) rules.push_back(make(p.lr * lr_factor, p.weight_decay));
    run<T>(rules, gradient_scale);
  });
}

template <class T, class Rule>
void DenseSet::run(const std::vector<Rule>& rules, double gradient_scale) {
  T* const value = values_.data<T>();
  const T* const gradient = gradients_.data<const T>();
  T* state[2] = {};
  for (size_t i = 0; i < state_.size(); ++i) state[i] = state_[i].data<T>();
  parallel_for(static_cast<int64_t>(blocks_.size()), kBlock * kUpdateWork, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const Block& block = blocks_[static_cast<size_t>(b)];
      const Rule& rule = rules[block.parameter];
      const int64_t at = block.begin;
      const T scale = static_cast<T>(gradient_scale);
      if constexpr (Rule::kSlots == 0) {
        optim::update(block.count, rule, scale, gradient + at, value + at);
      } else if constexpr (Rule::kSlots == 1) {
        optim::update(block.count, rule, scale, gradient + at, value + at, state[0] + at);
      } else {
        optim::update(block.count, rule, scale, gradient + at, value + at, state[0] + at, state[1] + at);
      }
    }
  });
}

template <class T>
void DenseSet::average_as(int64_t step) {
  const T kept = static_cast<T>(average_.kept(step - 1, step));
  const T* const value = values_.data<const T>();
  T* const average = averages_.data<T>();
  parallel_for(static_cast<int64_t>(blocks_.size()), kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const Block& block = blocks_[static_cast<size_t>(b)];
      blend(block.count, kept, value + block.begin, average + block.begin);
    }
  });
}

void DenseSet::swap_averages() {
  if (parameters_.empty()) return;
  const Tensor weights = values_.clone();
  copy_into(values_, averages_);
  copy_into(averages_, weights);
}

void DenseSet::append_state(std::vector<NamedTensor>& to) const {
  const auto slots = slot_names(rule_);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    for (size_t s = 0; s < slots.size(); ++s) {
      to.push_back({rule_.name + "." + slots[s] + "." + parameters_[i].name, slice(state_[s], i)});
    }
    if (average_.decay > 0) to.push_back({"average." + parameters_[i].name, slice(averages_, i)});
  }
}

}  // namespace mixrec::optim
