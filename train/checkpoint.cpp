#include "mixrec/train/checkpoint.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/safetensors.h"

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
  MR_CHECK(tensor.value.is_contiguous(), tensor.name, " is not dense");
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
  std::vector<TensorHeader> headers;
  for (const NamedTensor& tensor : tensors) headers.push_back(header_of(tensor));
  Tensor
      host;  // one at a time comes over from a device: tables may be larger than what the host has to spare
  write_safetensors(
      path, headers,
      [&](size_t i) {
        host = tensors[i].value.to(kCpu);
        return host.raw_data();
      },
      scalars);
}

Scalars load_tensors(const std::string& path, std::span<const NamedTensor> tensors) {
  const SafetensorsFile file(path);
  check_same_tensors(file, tensors);
  file.check_values();
  for (const NamedTensor& tensor : tensors) {
    const bool on_host = tensor.value.device().is_cpu();
    const Tensor host = on_host ? tensor.value : empty(tensor.value.shape(), tensor.value.dtype());
    file.read(header_of(tensor), host.raw_data());
    host.bump_version();
    if (!on_host) Tensor(tensor.value).copy_from(host);
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
