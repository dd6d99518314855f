#include "mixrec/core/device_errors.cuh"

namespace mixrec::cuda {
namespace {

__device__ BadId first_bad_id;  // one on every device, zero at the start

}  // namespace

BadId* bad_id() {
  void* address = nullptr;
  check(cudaGetSymbolAddress(&address, first_bad_id), "looking for the error word");
  return static_cast<BadId*>(address);
}

void check_device_errors(int index) {
  if (device_count() == 0) return;
  const auto stream = static_cast<cudaStream_t>(current_stream(index));
  BadId* const on_device = bad_id();
  BadId bad;
  check(cudaMemcpyAsync(&bad, on_device, sizeof bad, cudaMemcpyDeviceToHost, stream), "reading errors");
  check(cudaStreamSynchronize(stream), "reading errors");
  if (!bad.found) return;
  check(cudaMemsetAsync(on_device, 0, sizeof bad, stream), "clearing errors");
  const detail::OpScope op(bad.op);
  MR_FAIL("id ", bad.id, " at position ", bad.position, " is outside a table of ", bad.rows, " rows");
}

}  // namespace mixrec::cuda
