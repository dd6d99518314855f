#include "mixrec/nn/module.h"

#include "mixrec/autograd/meta.h"
#include "mixrec/core/error.h"
#include "mixrec/ops/cast.h"

#include <algorithm>
#include <cstdio>
#include <map>

namespace mixrec {

std::vector<Parameter> check_unshared(std::vector<Parameter> parameters) {
  std::map<const void*, std::string> seen;
  for (const Parameter& p : parameters) {
    const auto [at, fresh] = seen.emplace(p.value.id(), p.name);
    MR_CHECK(fresh, "'", p.name, "' and '", at->second, "' are one tensor");
  }
  return parameters;
}

void to_dtype(const std::vector<Parameter>& parameters, DType dtype) {
  for (const Parameter& p : parameters) {
    if (!is_floating(p.value.dtype()) || p.value.dtype() == dtype) continue;
    autograd::forget_gradient(p.value);
    p.value.rebind_as(cast(p.value.detach(), dtype));
  }
}

void to_device(const std::vector<Parameter>& parameters, Device device) {
  for (const Parameter& p : parameters) {
    if (p.value.device() == device) continue;
    autograd::forget_gradient(p.value);
    p.value.rebind(p.value.to(device));
  }
}

Device device_of(const std::vector<Parameter>& parameters) {
  return parameters.empty() ? kCpu : parameters[0].value.device();
}

int freeze(const std::vector<Parameter>& parameters, std::string_view pattern, bool frozen) {
  int count = 0;
  for (const Parameter& p : parameters) {
    if (p.kind == ParameterKind::buffer || !matches_pattern(p.name, pattern)) continue;
    Tensor(p.value).requires_grad(!frozen);
    ++count;
  }
  return count;
}

std::string summary(const std::vector<Parameter>& parameters) {
  size_t width = 4;
  for (const Parameter& p : parameters) width = std::max(width, p.name.size());
  std::string text;
  char line[512];
  const auto add = [&](const std::string& name, const std::string& shape, int64_t count) {
    std::snprintf(line, sizeof line, "%-*s  %-18s %14lld\n", static_cast<int>(width), name.c_str(),
                  shape.c_str(), static_cast<long long>(count));
    text += line;
  };
  int64_t dense = 0, tables = 0;
  for (const Parameter& p : parameters) {
    add(p.name, p.value.shape().to_string(), p.value.numel());
    if (p.kind == ParameterKind::dense) dense += p.value.numel();
    if (p.kind == ParameterKind::table) tables += p.value.numel();
  }
  add("dense parameters", "", dense);
  add("table parameters", "", tables);
  return text;
}

}  // namespace mixrec
