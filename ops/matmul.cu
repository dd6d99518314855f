// Products on a device, by cuBLASLt.
//
// Ours are row-major, cuBLAS's column-major: a row-major [r, c] is a column-major [c, r] in the same memory, so
// Cᵀ = op(B)ᵀ op(A)ᵀ is asked for, with the operands exchanged and the same flags.  A bias of a row-major column
// is one of a column-major row, which the epilogue adds.
//
// Determinism: the algorithm is the library's first suggestion for the shape, types and alignments, never the
// winner of a timing; reductions over parts of k are ordered.  f32 is computed as f32, without the shorter
// fractions of TF32.  Floor: 2·m·n·k operations over the rate of the tensor cores (750-790 TFLOP/s bf16 on an H100).
#include "mixrec/core/cuda_launch.cuh"
#include "mixrec/ops/matmul.h"

#include <array>
#include <cublasLt.h>
#include <map>
#include <memory>
#include <mutex>

namespace mixrec::kernel {
namespace {

constexpr size_t kWorkspace = size_t{32} << 20;

void check(cublasStatus_t status, const char* what) {
  MR_CHECK(status == CUBLAS_STATUS_SUCCESS, "cuBLAS failed while ", what, ": ",
           cublasLtGetStatusString(status));
}

template <class T>
constexpr cudaDataType_t kType = std::is_same_v<T, double>     ? CUDA_R_64F
                                 : std::is_same_v<T, bfloat16> ? CUDA_R_16BF
                                                               : CUDA_R_32F;

// One handle a device and process; calls on it may come from any thread.
cublasLtHandle_t handle() {
  static std::mutex mutex;
  static std::map<int, cublasLtHandle_t> handles;
  int index = 0;
  cuda::check(cudaGetDevice(&index), "asking for the current device");
  const std::lock_guard lock(mutex);
  cublasLtHandle_t& found = handles[index];
  if (!found) check(cublasLtCreate(&found), "starting");
  return found;
}

// The largest power of two, up to 16 bytes, that divides an address and the steps from it.
template <class T>
int64_t alignment(const T* p, int64_t ld, int64_t stride) {
  const auto steps = static_cast<uint64_t>(reinterpret_cast<uintptr_t>(p)) |
                     static_cast<uint64_t>(ld) * sizeof(T) | static_cast<uint64_t>(stride) * sizeof(T) | 16u;
  return static_cast<int64_t>(steps & ~(steps - 1));
}

// Everything that the choice of an algorithm depends on.
using Key = std::array<int64_t, 21>;

struct Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr, addend = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  size_t workspace = 0;

  ~Plan() {
    if (a) cublasLtMatrixLayoutDestroy(a);
    if (b) cublasLtMatrixLayoutDestroy(b);
    if (c) cublasLtMatrixLayoutDestroy(c);
    if (addend) cublasLtMatrixLayoutDestroy(addend);
    if (operation) cublasLtMatmulDescDestroy(operation);
  }
};

template <class V>
void set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t what, V value) {
  check(cublasLtMatmulDescSetAttribute(operation, what, &value, sizeof value), "describing a product");
}
template <class V>
void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t what, V value) {
  check(cublasLtMatmulPreferenceSetAttribute(preference, what, &value, sizeof value),
        "describing a preference");
}

// A column-major matrix of `rows` x `cols`, columns ld apart.
cublasLtMatrixLayout_t layout(cudaDataType_t type, int64_t rows, int64_t cols, int64_t ld, int64_t batch,
                              int64_t stride) {
  cublasLtMatrixLayout_t made = nullptr;
  check(cublasLtMatrixLayoutCreate(&made, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), ld),
        "describing a matrix");
  const auto count = static_cast<int32_t>(batch);
  check(cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count),
        "describing a batch");
  check(cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                         sizeof stride),
        "describing a batch");
  return made;
}

// Where the numbers are that a product is added to.
struct AddendStrides {
  int64_t row, batch;
};

template <class T, class C>
std::shared_ptr<Plan> make_plan(const Gemm& g, bool with_bias, AddendStrides addend, int64_t align_a,
                                int64_t align_b, int64_t align_c) {
  constexpr bool kDouble = std::is_same_v<T, double>;
  auto plan = std::make_shared<Plan>();
  check(cublasLtMatmulDescCreate(&plan->operation, kDouble ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                                 kDouble ? CUDA_R_64F : CUDA_R_32F),
        "describing a product");
  set(plan->operation, CUBLASLT_MATMUL_DESC_TRANSA, g.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(plan->operation, CUBLASLT_MATMUL_DESC_TRANSB, g.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (with_bias) {
    set(plan->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(plan->operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, kType<C>);
    if (g.batch > 1) set(plan->operation, CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, g.stride_bias);
  }
  const auto b_rows = g.transpose_b ? g.k : g.n, b_cols = g.transpose_b ? g.n : g.k;
  const auto a_rows = g.transpose_a ? g.m : g.k, a_cols = g.transpose_a ? g.k : g.m;
  plan->a = layout(kType<T>, b_rows, b_cols, g.ldb, g.batch, g.stride_b);
  plan->b = layout(kType<T>, a_rows, a_cols, g.lda, g.batch, g.stride_a);
  plan->c = layout(kType<C>, g.n, g.m, g.ldc, g.batch, g.stride_c);
  plan->addend = layout(kType<C>, g.n, g.m, addend.row, g.batch, addend.batch);

  cublasLtMatmulPreference_t preference = nullptr;
  check(cublasLtMatmulPreferenceCreate(&preference), "describing a preference");
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<uint32_t>(align_b));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(align_a));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(align_c));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(align_c));
  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle(), plan->operation, plan->a, plan->b, plan->addend, plan->c, preference, 1, &result, &found);
  cublasLtMatmulPreferenceDestroy(preference);
  MR_CHECK(status == CUBLAS_STATUS_SUCCESS && found > 0, "cuBLAS has no algorithm for a product of ", g.m,
           " x ", g.k, " and ", g.k, " x ", g.n, " (", cublasLtGetStatusString(status), ")");
  plan->algorithm = result.algo;
  plan->workspace = result.workspaceSize;
  return plan;
}

// Plans of the shapes seen so far.  Histories of many lengths make many shapes, so old ones are dropped.
template <class T, class C>
std::shared_ptr<Plan> plan_for(const Gemm& g, bool with_bias, AddendStrides addend, int64_t align_a,
                               int64_t align_b, int64_t align_c) {
  static std::mutex mutex;
  static std::map<Key, std::shared_ptr<Plan>> plans;
  int index = 0;
  cuda::check(cudaGetDevice(&index), "asking for the current device");
  const Key key{index,      g.m,          g.n,       g.k,           g.transpose_a, g.transpose_b,
                g.lda,      g.ldb,        g.ldc,     g.batch,       g.stride_a,    g.stride_b,
                g.stride_c, g.accumulate, with_bias, g.stride_bias, addend.row,    addend.batch,
                align_a,    align_b,      align_c};
  const std::lock_guard lock(mutex);
  if (const auto found = plans.find(key); found != plans.end()) return found->second;
  constexpr size_t kMostPlans = 4096;
  if (plans.size() >= kMostPlans) plans.clear();
  return plans[key] = make_plan<T, C>(g, with_bias, addend, align_a, align_b, align_c);
}

// k = 0: what is left of c = [bias] + [c].
template <class C>
__global__ void without_product(Gemm g, C* c, const C* bias) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= g.batch * g.m * g.n) return;
  const int64_t item = i / (g.m * g.n), row = i / g.n % g.m, col = i % g.n;
  C& to = c[item * g.stride_c + row * g.ldc + col];
  acc_t<C> sum = g.accumulate ? static_cast<acc_t<C>>(to) : 0;
  if (bias) sum += static_cast<acc_t<C>>(bias[item * g.stride_bias + col]);
  to = static_cast<C>(sum);
}

// c = alpha op(a) op(b) + beta addend [+ bias]
template <class T, class C>
void run_plan(Cuda device, const Gemm& shape, const T* a, const T* b, double beta_value, const C* addend,
              AddendStrides strides, C* c, const C* bias) {
  const int64_t align_c =
      std::min(alignment(c, shape.ldc, shape.stride_c), alignment(addend, strides.row, strides.batch));
  const auto plan = plan_for<T, C>(shape, bias != nullptr, strides, alignment(a, shape.lda, shape.stride_a),
                                   alignment(b, shape.ldb, shape.stride_b), align_c);
  cublasLtMatmulDesc_t operation = plan->operation;
  cublasLtMatmulDescOpaque_t with_pointer;  // the plan is shared between threads, the pointer is not
  if (bias) {
    with_pointer = *plan->operation;
    operation = &with_pointer;
    set(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }
  const auto alpha = static_cast<acc_t<C>>(shape.alpha), beta = static_cast<acc_t<C>>(beta_value);
  cuda::Scratch<std::byte> workspace(static_cast<int64_t>(plan->workspace));
  check(cublasLtMatmul(handle(), operation, &alpha, b, plan->a, a, plan->b, &beta, addend, plan->addend, c,
                       plan->c, &plan->algorithm, workspace.data(), plan->workspace, cuda::stream_of(device)),
        "multiplying");
  cuda::check_launch(device);
}

}  // namespace

template <class T, class C>
void product(Cuda device, const Gemm& shape, const T* a, const T* b, C* c, const C* bias) {
  check(shape);
  if (shape.batch == 0 || shape.m == 0 || shape.n == 0) return;
  if (shape.k == 0) {
    return cuda::launch(device, without_product<C>, cuda::blocks(shape.batch * shape.m * shape.n, 256), 256,
                        0, shape, c, bias);
  }
  run_plan<T, C>(device, shape, a, b, shape.accumulate ? 1 : 0, c, {shape.ldc, shape.stride_c}, c, bias);
}

template <class T, class C>
void product_with(Cuda device, const Gemm& shape, const T* a, const T* b, Mat<const C> addend, C* c) {
  check(shape);
  if (shape.batch == 0 || shape.m == 0 || shape.n == 0) return;
  MR_CHECK(shape.k > 0, "a product over no columns has nothing to add to");
  run_plan<T, C>(device, shape, a, b, 1, addend.data, {addend.row_stride, addend.batch_stride}, c,
                 static_cast<const C*>(nullptr));
}

template void product(Cuda, const Gemm&, const float*, const float*, float*, const float*);
template void product(Cuda, const Gemm&, const bfloat16*, const bfloat16*, bfloat16*, const bfloat16*);
template void product(Cuda, const Gemm&, const bfloat16*, const bfloat16*, float*, const float*);
template void product(Cuda, const Gemm&, const double*, const double*, double*, const double*);
template void product_with(Cuda, const Gemm&, const float*, const float*, Mat<const float>, float*);
template void product_with(Cuda, const Gemm&, const bfloat16*, const bfloat16*, Mat<const bfloat16>,
                           bfloat16*);
template void product_with(Cuda, const Gemm&, const bfloat16*, const bfloat16*, Mat<const float>, float*);
template void product_with(Cuda, const Gemm&, const double*, const double*, Mat<const double>, double*);

}  // namespace mixrec::kernel
