#include "mixrec/optim/dense.h"

#include "mixrec/autograd/meta.h"
#include "mixrec/core/copy.h"
#include "mixrec/core/cuda.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/optim/loops.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

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

}  // namespace

DenseSet::DenseSet(std::vector<Trained> parameters, const RuleOptions& rule, MovingAverage average)
    : parameters_(std::move(parameters)), rule_(rule), average_(average) {
  if (parameters_.empty()) return;
  dtype_ = parameters_[0].value.dtype();
  device_ = parameters_[0].value.device();
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
  values_ = zeros({total}, dtype_, device_);
  gradients_ = zeros({total}, dtype_, device_);
  if (average_.decay > 0) averages_ = zeros({total}, dtype_, device_);
  for (size_t i = 0; i < slot_names(rule_).size(); ++i) {
    state_.push_back(full({total}, rule_.initial_accumulator, dtype_, device_));
  }
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor& value = parameters_[i].value;
    const Tensor home = slice(values_, i);
    copy_into(home, value);
    value.rebind(home);
    // A gradient from before may be held by anybody: it stays where it is.
    autograd::leaf_meta(value)->grad_in_buffer.reset();
    autograd::leaf_meta(value)->grad_buffer = slice(gradients_, i);
  }
  if (device_.is_cuda()) make_device_blocks();
}

void DenseSet::make_device_blocks() {
  constexpr int64_t kVector = 16;  // bytes
  const int64_t whole = kVector / static_cast<int64_t>(size_of(dtype_));
  std::vector<uint8_t> bytes;
  for (const Block& block : blocks_) {
    const Trained& p = parameters_[block.parameter];
    const DenseBlock entry{block.begin, (block.count + whole - 1) / whole * whole, p.lr, p.weight_decay,
                           static_cast<int32_t>(block.parameter)};
    const auto* const begin = reinterpret_cast<const uint8_t*>(&entry);
    bytes.insert(bytes.end(), begin, begin + sizeof entry);
  }
  device_blocks_ = Tensor::from(bytes).to(device_);
  partials_ = empty({static_cast<int64_t>(blocks_.size())}, f64, device_);
}

Tensor DenseSet::slice(const Tensor& flat, size_t parameter) const {
  return Tensor::part(flat.storage(), static_cast<size_t>(offsets_[parameter]) * size_of(flat.dtype()),
                      parameters_[parameter].value.shape(), flat.dtype());
}

// Brings shadows that were made since the last step into the flat buffer; the update is about to write them.
// Not into the memory of a graph that is being recorded: they must outlive it.
void DenseSet::keep_shadows() {
  if (dtype_ != f32 || cuda::capturing()) return;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    Tensor& shadow = parameters_[i].value.meta()->shadow;
    if (!shadow.defined() || shadow.dtype() != bf16 || shadow.device() != device_) continue;
    if (!shadows_.defined()) shadows_ = zeros(values_.shape(), bf16, device_);
    if (!in_shadows(i)) shadow = slice(shadows_, i);
  }
}

bool DenseSet::in_shadows(size_t parameter) const {
  const Tensor& shadow = parameters_[parameter].value.meta()->shadow;
  return shadows_.defined() && shadow.defined() &&
         shadow.raw_data() == shadows_.data<bfloat16>() + offsets_[parameter];
}

void DenseSet::mark_changed() {
  for (const Trained& p : parameters_) p.value.bump_version();
}

void DenseSet::mark_shadows() {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Trained& p = parameters_[i];
    autograd::Meta& meta = *p.value.meta();
    if (!meta.shadow.defined() || meta.shadow.dtype() != bf16) continue;
    if (in_shadows(i)) {
      meta.shadow.bump_version();
    } else {
      if (!cuda::capturing()) continue;          // made anew when it is next read
      copy_into(meta.shadow, p.value.detach());  // in a replay nobody looks whether it is valid
    }
    meta.shadow_version = p.value.version();
  }
}

// A fresh buffer when somebody holds a gradient of an earlier step that lies in this one.  Not once a step was
// recorded: a graph goes on writing to the addresses that it was recorded with.
void DenseSet::leave_held_gradients() {
  const auto held = [](const Trained& p) {
    const autograd::Meta& meta = *p.value.meta();
    const auto last = meta.grad_in_buffer.lock();
    return last && !(meta.grad.defined() && meta.grad.storage() == last);
  };
  if (recorded_ || cuda::capturing() || std::none_of(parameters_.begin(), parameters_.end(), held)) return;
  gradients_ = zeros(gradients_.shape(), dtype_, device_);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    autograd::Meta& meta = *parameters_[i].value.meta();
    meta.grad_buffer = slice(gradients_, i);
    meta.grad_in_buffer.reset();
  }
}

void DenseSet::collect() {
  leave_held_gradients();
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor grad = parameters_[i].value.grad();
    const Tensor home = slice(gradients_, i);
    if (!grad.defined()) {
      home.detach().fill(0);
    } else if (grad.raw_data() != home.raw_data()) {
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
  keep_shadows();
  dispatch_real(dtype_, [&]<class T>() {
    update_as<T>(step, lr_factor, gradient_scale);
    if (average_.decay > 0) average_as<T>(step);
  });
  mark_changed();
  mark_shadows();
}

template <class T>
void DenseSet::update_as(int64_t step, double lr_factor, double gradient_scale) {
  const RuleNumbers numbers(rule_);
  const AdamCorrection correction(rule_.beta1, rule_.beta2, step);
  with_dense_rule<T>(rule_, [&]<class Rule>() {
    std::vector<Rule> rules;
    for (const Trained& p : parameters_)
      rules.push_back(Rule::make(numbers, p.lr * lr_factor, p.weight_decay, correction));
    run<T>(rules, gradient_scale);
  });
}

template <class T, class Rule>
void DenseSet::run(const std::vector<Rule>& rules, double gradient_scale) {
  T* const value = values_.data<T>();
  const T* const gradient = gradients_.data<const T>();
  T* state[2] = {};
  for (size_t i = 0; i < state_.size(); ++i) state[i] = state_[i].data<T>();
  bfloat16* const shadow = shadows_.defined() ? shadows_.data<bfloat16>() : nullptr;
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
      if constexpr (std::is_same_v<T, float>) {
        if (shadow)
          simd::transform(
              block.count, shadow + at, [](auto p) { return p; }, value + at);
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

template <class T>
DenseView<T> DenseSet::view() const {
  DenseView<T> view{};
  view.blocks = reinterpret_cast<const DenseBlock*>(device_blocks_.raw_data());
  view.count = static_cast<int64_t>(blocks_.size());
  view.values = values_.data<T>();
  view.gradients = gradients_.data<const T>();
  for (size_t i = 0; i < state_.size(); ++i) view.state[i] = state_[i].data<T>();
  if (averages_.defined()) view.averages = averages_.data<T>();
  if (shadows_.defined()) view.shadow = shadows_.data<bfloat16>();
  return view;
}

Partials DenseSet::square(Cuda device, DeviceStep* step) {
  if (parameters_.empty()) return {};
  auto* const partials = partials_.data<double>();
  if constexpr (kHasCuda)
    dispatch_real(dtype_, [&]<class T>() { kernel::square_dense(device, view<T>(), partials, step); });
  return {partials, partials_.numel()};
}

void DenseSet::update(Cuda device, const DeviceStep* step) {
  if (parameters_.empty()) return;
  recorded_ = recorded_ || cuda::capturing();
  keep_shadows();
  if constexpr (kHasCuda)
    dispatch_real(dtype_, [&]<class T>() { kernel::update_dense(device, rule_, view<T>(), step); });
  mark_changed();
  mark_shadows();
}

void DenseSet::swap_averages() {
  if (parameters_.empty()) return;
  const Tensor weights = values_.clone();
  copy_into(values_, averages_);
  copy_into(averages_, weights);
  mark_changed();
  if (!shadows_.defined()) return;
  // Here, and not when they are next read: a recorded graph reads this memory without asking.
  copy_into(shadows_, values_);
  mark_shadows();
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
