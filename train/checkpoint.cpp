#include "mixrec/train/checkpoint.h"

#include "mixrec/core/error.h"
#include "mixrec/train/safetensors.h"

#include <set>

namespace mixrec {

namespace {

const char* stored_name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "F32";
    case DType::bf16:
      return "BF16";
    case DType::f64:
      return "F64";
    case DType::i32:
      return "I32";
    case DType::i64:
      return "I64";
    case DType::u8:
      return "U8";
  }
  MR_FAIL("unknown dtype");
}

TensorHeader header_of(const NamedTensor& tensor) {
  MR_CHECK(tensor.value.is_contiguous() && tensor.value.device().is_cpu(), tensor.name,
           " is not dense in host memory");
  TensorHeader header{tensor.name, stored_name(tensor.value.dtype()), {}};
  for (int i = 0; i < tensor.value.ndim(); ++i) header.shape.push_back(tensor.value.dim(i));
  return header;
}

// Everything that read() would refuse, so that a refusal comes before the first change.
void check_same_tensors(const SafetensorsFile& file, std::span<const NamedTensor> tensors) {
  std::set<std::string> expected;
  for (const NamedTensor& tensor : tensors) {
    const TensorHeader header = header_of(tensor);
    expected.insert(header.name);
    const TensorHeader* stored = file.find(header.name);
    MR_CHECK(stored, file.path(), " lacks the tensor ", header.name, " ", shape_text(header.shape));
    MR_CHECK(stored->shape == header.shape && stored->dtype == header.dtype, file.path(), ": ", header.name,
             " is ", stored->dtype, " ", shape_text(stored->shape), ", the model needs ", header.dtype, " ",
             shape_text(header.shape));
  }
  for (const TensorHeader& stored : file.tensors()) {
    MR_CHECK(expected.contains(stored.name), file.path(), " holds ", stored.name,
             ", which the model does not have");
  }
}

}  // namespace

void save_tensors(const std::string& path, std::span<const NamedTensor> tensors, const Scalars& scalars) {
  std::vector<TensorToWrite> all;
  for (const NamedTensor& tensor : tensors) all.push_back({header_of(tensor), tensor.value.raw_data()});
  write_safetensors(path, all, scalars);
}

Scalars load_tensors(const std::string& path, std::span<const NamedTensor> tensors) {
  const SafetensorsFile file(path);
  check_same_tensors(file, tensors);
  for (const NamedTensor& tensor : tensors) {
    file.read(header_of(tensor), tensor.value.raw_data());
    tensor.value.bump_version();
  }
  return file.metadata();
}

Scalars load_scalars(const std::string& path) { return SafetensorsFile(path).metadata(); }

std::vector<NamedTensor> named_tensors(const std::vector<Parameter>& parameters, const std::string& prefix) {
  std::vector<NamedTensor> tensors;
  for (const Parameter& parameter : parameters) tensors.push_back({prefix + parameter.name, parameter.value});
  return tensors;
}

}  // namespace mixrec
