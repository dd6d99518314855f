// Tensors that an independent program wrote: tests/golden/, made by tests/oracle/.
#pragma once

#include "mixrec/core/error.h"
#include "mixrec/core/files/safetensors.h"
#include "mixrec/core/tensor.h"

#include <cmath>
#include <string>
#include <vector>

namespace mixrec::test {

class Golden {
 public:
  explicit Golden(const std::string& name) : file_("tests/golden/" + name + ".safetensors") {}

  const std::vector<TensorHeader>& tensors() const { return file_.tensors(); }
  bool has(const std::string& name) const { return file_.find(name) != nullptr; }

  Tensor operator[](const std::string& name) const {
    const TensorHeader* header = file_.find(name);
    MR_CHECK(header, file_.path(), " has no tensor '", name, "'");
    const DType dtype = header->dtype == "F64" ? f64 : header->dtype == "F32" ? f32 : i64;
    Shape shape;
    for (const int64_t size : header->shape) shape.append(size);
    Tensor tensor = empty(shape, dtype);
    file_.read(*header, tensor.raw_data());
    return tensor;
  }

 private:
  SafetensorsFile file_;
};

// ‖a - b‖ / ‖b‖, or ‖a‖ where b is zero; infinite where shapes differ or a value is not a number.
inline double relative_difference(const Tensor& a, const Tensor& b) {
  if (!a.defined() || a.shape() != b.shape()) return INFINITY;
  const auto left = a.contiguous().to_vector<double>(), right = b.contiguous().to_vector<double>();
  double difference = 0, norm = 0;
  for (size_t i = 0; i < left.size(); ++i) {
    difference += (left[i] - right[i]) * (left[i] - right[i]);
    norm += right[i] * right[i];
  }
  if (std::isnan(difference)) return INFINITY;
  return std::sqrt(norm > 0 ? difference / norm : difference);
}

}  // namespace mixrec::test
