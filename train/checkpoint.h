// Named tensors and scalars in one safetensors file, written all or nothing and read back exactly.  Tensors may
// be on any device; the file does not say on which.
#pragma once

#include "mixrec/core/parameter.h"
#include "mixrec/optim/state.h"

#include <map>
#include <span>
#include <string>
#include <vector>

namespace mixrec {

// Scalars travel as text in the file's metadata.
using Scalars = std::map<std::string, std::string>;

// Puts `path` in place in one atomic step; on an error (a full disk) the file before it stays.
void save_tensors(const std::string& path, std::span<const NamedTensor> tensors, const Scalars& scalars = {});

// Fills `tensors`, which must be dense, from the file and returns its scalars.  Throws, before any tensor was
// changed, unless the file is whole and holds exactly these names with these shapes and dtypes.
Scalars load_tensors(const std::string& path, std::span<const NamedTensor> tensors);

// Reads the scalars alone.
Scalars load_scalars(const std::string& path);

// The parameters and buffers of a model under their names, each with `prefix` in front.
std::vector<NamedTensor> named_tensors(const std::vector<Parameter>& parameters,
                                       const std::string& prefix = "");

}  // namespace mixrec
