// Cards, streams, events, copies and graphs: core/cuda.h in a build with CUDA.
#include "mixrec/config.h"
#include "mixrec/core/cuda_launch.cuh"
#include "mixrec/core/cuda_memory.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace mixrec::cuda {
namespace {

constexpr int kMaxDevices = 16;

struct Cards {
  int usable = 0;
  std::string reason;
};

// Code in this build that a card of this capability runs: its own architecture, an older one of the same
// major number, or portable code of an older one.
bool has_code_for(const cudaDeviceProp& card) {
  const int capability = card.major * 10 + card.minor;
  const std::string built = " " MIXREC_CUDA_ARCH " ";
  for (size_t at = 1; at < built.size();) {
    const size_t end = built.find(' ', at);
    const std::string arch = built.substr(at, end - at);
    at = end + 1;
    if (arch.empty()) continue;
    const int number = std::atoi(arch.c_str());
    const bool exact = arch.back() == 'a';
    if (capability == number || (!exact && capability > number && capability / 10 == number / 10))
      return true;
    if (arch == "80" && capability > 80) return true;  // the release's portable code
  }
  return false;
}

Cards look_for_cards() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    (void)cudaGetLastError();
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0) return {0, "no NVIDIA driver is installed"};
    if (driver / 1000 < runtime / 1000)
      return {0, concat_message("the NVIDIA driver is for CUDA ", driver / 1000, ".", driver % 1000 / 10,
                                ", this build needs ", runtime / 1000, ".", runtime % 1000 / 10,
                                ": update the driver")};
    return {0, concat_message("no card can be used: ", cudaGetErrorString(status))};
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp card;
    if (cudaGetDeviceProperties(&card, i) != cudaSuccess) continue;
    if (!has_code_for(card)) {
      return {i, concat_message(
                     "card ", i, " (", card.name, ") has compute capability ", card.major, ".", card.minor,
                     ", this build has code for sm_" MIXREC_CUDA_ARCH ": build with make CUDA_ARCH=",
                     card.major, card.minor)};
    }
  }
  return {count, ""};
}

const Cards& cards() {
  static const Cards found = look_for_cards();
  return found;
}

bool waits_for_every_launch() {
  static const bool on = [] {
    const char* value = std::getenv("MIXREC_SYNC");
    return value && *value && *value != '0';
  }();
  return on;
}

// The stream that a device starts with, made on first use and never destroyed.
cudaStream_t main_stream(int index) {
  static cudaStream_t streams[kMaxDevices] = {};
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (!streams[index])
    check(cudaStreamCreateWithFlags(&streams[index], cudaStreamNonBlocking), "making a stream");
  return streams[index];
}

thread_local cudaStream_t chosen_stream = nullptr;  // of a StreamScope; null: the device's main stream
thread_local bool recording = false;

void select(int index) {
  thread_local int selected = -1;
  if (selected == index) return;
  MR_CHECK(index >= 0 && index < device_count() && index < kMaxDevices, "there is no card ", index,
           device_count() == 0 ? concat_message(": ", unavailable_reason())
                               : concat_message(", only ", device_count()));
  check(cudaSetDevice(index), "selecting a card");
  selected = index;
}

}  // namespace

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();
  MR_FAIL("CUDA failed while ", what, ": ", cudaGetErrorString(status));
}

void check_launch(Cuda device) {
  check(cudaPeekAtLastError(), "launching a kernel");
  if (waits_for_every_launch() && !recording)
    check(cudaStreamSynchronize(stream_of(device)), "running a kernel");
}

int multiprocessors() {
  static int counts[kMaxDevices] = {};
  int index = 0;
  check(cudaGetDevice(&index), "asking for the current device");
  if (!counts[index])
    check(cudaDeviceGetAttribute(&counts[index], cudaDevAttrMultiProcessorCount, index),
          "asking for its size");
  return counts[index];
}

int device_count() { return cards().usable; }
std::string unavailable_reason() { return cards().usable > 0 ? "" : cards().reason; }

std::string describe(int index) {
  select(index);
  cudaDeviceProp card;
  check(cudaGetDeviceProperties(&card, index), "asking for a card's properties");
  int driver = 0;
  cudaDriverGetVersion(&driver);
  char text[400];
  std::snprintf(text, sizeof text, "%s, compute capability %d.%d, %.0f GiB, driver for CUDA %d.%d", card.name,
                card.major, card.minor, static_cast<double>(card.totalGlobalMem) / 0x1p30, driver / 1000,
                driver % 1000 / 10);
  return text;
}

void* current_stream(int index) {
  select(index);
  return chosen_stream ? chosen_stream : main_stream(index);
}

void synchronize(int index) {
  check(cudaStreamSynchronize(static_cast<cudaStream_t>(current_stream(index))), "waiting for the device");
}

Stream::Stream(int index) : index_(index) {
  select(index);
  cudaStream_t made = nullptr;
  check(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "making a stream");
  handle_ = made;
}
Stream::~Stream() {
  const auto stream = static_cast<cudaStream_t>(handle_);
  cudaStreamSynchronize(stream);
  forget_stream(stream, main_stream(index_), index_);
  cudaStreamDestroy(stream);
}

StreamScope::StreamScope(const Stream& stream) : outer_(chosen_stream) {
  chosen_stream = static_cast<cudaStream_t>(stream.handle());
}
StreamScope::~StreamScope() { chosen_stream = static_cast<cudaStream_t>(outer_); }

Event::Event() {
  cudaEvent_t made = nullptr;
  check(cudaEventCreate(&made), "making an event");
  handle_ = made;
}
Event::~Event() { cudaEventDestroy(static_cast<cudaEvent_t>(handle_)); }
namespace {
cudaStream_t stream_here() {
  int index = 0;
  check(cudaGetDevice(&index), "asking for the current device");
  return static_cast<cudaStream_t>(current_stream(index));
}
}  // namespace
void Event::record() {
  check(cudaEventRecord(static_cast<cudaEvent_t>(handle_), stream_here()), "recording an event");
}
void Event::wait() const {
  check(cudaStreamWaitEvent(stream_here(), static_cast<cudaEvent_t>(handle_)), "waiting for an event");
}
void Event::synchronize() const {
  check(cudaEventSynchronize(static_cast<cudaEvent_t>(handle_)), "waiting for an event");
}
double Event::milliseconds_since(const Event& start) const {
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(start.handle_),
                             static_cast<cudaEvent_t>(handle_)),
        "reading a stop-watch");
  return milliseconds;
}

namespace {

// The branch of the current stream: this thread's alone, so that memory that it hands back is only handed out again
// after the next fork, which waits for all that the outer stream did with it.
const Stream& branch_of_current(int index) {
  thread_local std::map<void*, Stream> branches;
  void* const outer = current_stream(index);
  return branches.try_emplace(outer, index).first->second;
}

}  // namespace

Branch::Branch(int index) : stream_(&branch_of_current(index)) {
  Event here;
  here.record();
  const StreamScope beside(*stream_);
  here.wait();
}

Branch::~Branch() {
  try {
    Event end;
    {
      const StreamScope beside(*stream_);
      end.record();
    }
    end.wait();
  } catch (const Error&) {
    // A broken context: the next call says so.
  }
}

void copy(void* to, Device to_device, const void* from, Device from_device, size_t bytes) {
  if (bytes == 0) return;
  const int index = to_device.is_cuda() ? to_device.index : from_device.index;
  const auto stream = static_cast<cudaStream_t>(current_stream(index));
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream), "copying");
  // From pageable memory the call returns when the bytes were staged; into it they must have arrived.
  if (to_device.is_cpu() && !recording) check(cudaStreamSynchronize(stream), "copying to the host");
}

void fill_bytes(void* to, int value, size_t bytes) {
  if (bytes) check(cudaMemsetAsync(to, value, bytes, stream_here()), "filling memory");
}

bool capturing() { return recording; }

struct Graph::Impl {
  int index;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  std::shared_ptr<Arena> arena;
};

Graph::Graph(const std::function<void()>& work, int index)
    : impl_(new Impl{index, nullptr, nullptr, make_arena(index)}) {
  MR_OP("cuda graph");
  MR_CHECK(!recording, "a graph is being recorded already");
  const auto stream = static_cast<cudaStream_t>(current_stream(index));
  check(cudaStreamSynchronize(stream), "waiting for the device");
  const ArenaScope arena(impl_->arena);
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "beginning to record");
  recording = true;
  try {
    work();
  } catch (...) {
    recording = false;
    cudaStreamEndCapture(stream, &impl_->graph);
    if (impl_->graph) cudaGraphDestroy(impl_->graph);
    (void)cudaGetLastError();
    throw;
  }
  recording = false;
  check(cudaStreamEndCapture(stream, &impl_->graph), "recording: something in it waited for the device");
  check(cudaGraphInstantiate(&impl_->executable, impl_->graph, 0), "building a graph");
}

Graph::~Graph() {
  cudaStreamSynchronize(main_stream(impl_->index));
  if (impl_->executable) cudaGraphExecDestroy(impl_->executable);
  if (impl_->graph) cudaGraphDestroy(impl_->graph);
}

void Graph::replay() {
  check(cudaGraphLaunch(impl_->executable, static_cast<cudaStream_t>(current_stream(impl_->index))),
        "replaying a graph");
}

}  // namespace mixrec::cuda
