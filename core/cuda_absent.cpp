// core/cuda.h in a build without CUDA.
#include "mixrec/config.h"

#if !MIXREC_CUDA

#include "mixrec/core/cuda.h"
#include "mixrec/core/error.h"

namespace mixrec::cuda {
namespace {

constexpr const char* kReason = "this build has no CUDA: build with make CUDA=1";

[[noreturn]] void absent() { MR_FAIL(kReason); }

}  // namespace

struct Graph::Impl {};

int device_count() { return 0; }
std::string unavailable_reason() { return kReason; }
std::string describe(int) { absent(); }
void* current_stream(int) { absent(); }
void synchronize(int) {}
void check_device_errors(int) {}
Stream::Stream(int index) : index_(index) { absent(); }
Stream::~Stream() = default;
StreamScope::StreamScope(const Stream&) { absent(); }
StreamScope::~StreamScope() = default;
Event::Event() { absent(); }
Event::~Event() = default;
void Event::record() {}
void Event::wait() const {}
void Event::synchronize() const {}
double Event::milliseconds_since(const Event&) const { absent(); }
Branch::Branch(int) { absent(); }
Branch::~Branch() = default;
MemoryStats memory(int) { return {}; }
void reset_memory_peak(int) {}
void release_memory_cache(int) {}
void copy(void*, Device, const void*, Device, size_t) { absent(); }
void fill_bytes(void*, int, size_t) { absent(); }
std::byte* allocate(size_t, int) { absent(); }
void free(std::byte*, int) {}
std::byte* allocate_pinned(size_t) { absent(); }
void free_pinned(std::byte*) {}
Graph::Graph(const std::function<void()>&, int) { absent(); }
Graph::~Graph() = default;
void Graph::replay() { absent(); }
bool capturing() { return false; }

}  // namespace mixrec::cuda

#endif
