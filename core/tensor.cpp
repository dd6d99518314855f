#include "mixrec/core/tensor.h"

#include "mixrec/core/copy.h"
#include "mixrec/core/cuda.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/core/storage.h"

#include <cmath>
#include <cstring>
#include <ostream>

namespace mixrec {

struct Tensor::Impl {
  Shape shape;
  Shape strides;
  int64_t offset = 0;
  DType dtype = DType::f32;
  std::shared_ptr<Storage> storage;
  std::shared_ptr<autograd::Meta> meta;
};

const Tensor::Impl& Tensor::impl() const {
  MR_CHECK(impl_, "an undefined tensor was used");
  return *impl_;
}

const Shape& Tensor::shape() const { return impl().shape; }
const Shape& Tensor::strides() const { return impl().strides; }
DType Tensor::dtype() const { return impl().dtype; }
Device Tensor::device() const { return impl().storage->device(); }
int64_t Tensor::offset() const { return impl().offset; }
const std::shared_ptr<Storage>& Tensor::storage() const { return impl().storage; }
const std::shared_ptr<autograd::Meta>& Tensor::meta() const { return impl().meta; }
void Tensor::set_meta(std::shared_ptr<autograd::Meta> meta) const { impl(), impl_->meta = std::move(meta); }
uint32_t Tensor::version() const { return impl().storage->version(); }
void Tensor::bump_version() const { impl().storage->bump_version(); }
bool Tensor::sole_owner() const { return impl_.use_count() == 1 && impl_->storage.use_count() == 1; }

bool Tensor::is_contiguous() const {
  int64_t step = 1;
  for (int i = ndim() - 1; i >= 0; --i) {
    if (dim(i) == 0) return true;
    if (dim(i) != 1 && strides()[i] != step) return false;
    step *= dim(i);
  }
  return true;
}

void* Tensor::raw_data() const {
  // An empty storage has no address to count from.
  std::byte* start = impl().storage->data();
  return start ? start + impl().offset * static_cast<int64_t>(size_of(dtype())) : nullptr;
}

void* Tensor::raw(DType expected) const {
  MR_CHECK(dtype() == expected, "data of dtype ", dtype(), " was asked for as ", expected);
  return raw_data();
}

namespace {

// Every element of a view lies in its storage.
void check_inside(const Storage& storage, int64_t offset, const Shape& shape, const Shape& strides,
                  DType dtype) {
  shape.check_countable();
  MR_CHECK(strides.ndim() == shape.ndim() && offset >= 0, "a view of shape ", shape, " has strides ", strides,
           " and offset ", offset);
  if (shape.numel() == 0) return;
  int64_t last = offset;
  bool outside = false;
  for (int i = 0; i < shape.ndim(); ++i) {
    int64_t step = 0;
    outside |= strides[i] < 0 || __builtin_mul_overflow(shape[i] - 1, strides[i], &step) ||
               __builtin_add_overflow(last, step, &last);
  }
  const int64_t held = static_cast<int64_t>(storage.bytes() / size_of(dtype));
  MR_CHECK(!outside && last < held, "a view of shape ", shape, " with strides ", strides, " and offset ",
           offset, " does not lie in a block of ", held, " elements");
}

}  // namespace

Tensor Tensor::view(std::shared_ptr<Storage> storage, int64_t offset, const Shape& shape,
                    const Shape& strides, DType dtype) {
  check_inside(*storage, offset, shape, strides, dtype);
  Tensor out;
  out.impl_ = std::make_shared<Impl>(Impl{shape, strides, offset, dtype, std::move(storage), nullptr});
  return out;
}

Tensor Tensor::part(const std::shared_ptr<Storage>& whole, size_t begin, const Shape& shape, DType dtype) {
  const size_t bytes = static_cast<size_t>(shape.numel()) * size_of(dtype);
  return view(std::make_shared<Storage>(whole, begin, bytes), 0, shape, dense_strides(shape), dtype);
}

void Tensor::rebind(const Tensor& other) const {
  MR_CHECK(shape() == other.shape() && dtype() == other.dtype(), "cannot rebind ", shape(), " ", dtype(),
           " to ", other.shape(), " ", other.dtype());
  impl_->storage = other.storage();
  impl_->offset = other.offset();
  impl_->strides = other.strides();
}

void Tensor::rebind_as(const Tensor& other) const {
  MR_CHECK(shape() == other.shape(), "cannot rebind ", shape(), " to ", other.shape());
  impl_->dtype = other.dtype();
  rebind(other);
}

Tensor Tensor::from_host(const void* values, int64_t count, DType dtype, const Shape& shape) {
  MR_CHECK(count == shape.numel(), count, " values cannot fill ", shape);
  Tensor out = empty(shape, dtype);
  if (count) std::memcpy(out.raw_data(), values, static_cast<size_t>(count) * size_of(dtype));
  return out;
}

namespace {

// Merges dimensions [first, last) into one (size, stride); false when the strides do not allow it.
bool merge(const Shape& shape, const Shape& strides, int first, int last, int64_t* size, int64_t* stride) {
  *size = 1;
  *stride = 0;
  for (int i = last - 1; i >= first; --i) {
    if (shape[i] == 1) continue;
    if (*size == 1) {
      *stride = strides[i];
    } else if (strides[i] != *stride * *size) {
      return false;
    }
    *size *= shape[i];
  }
  return true;
}

}  // namespace

Mat<std::byte> Tensor::rows_view() const {
  const int last = ndim() - 1;
  if (last < 0) return {nullptr, 1, 1, 1, 0, 1};
  const int64_t cols = dim(last);
  MR_CHECK(cols <= 1 || strides()[last] == 1, "the last dimension of ", shape(),
           " is strided: call contiguous()");
  Mat<std::byte> m{nullptr, 1, 0, cols, 0, cols};
  if (numel() == 0) {
    m.rows = 1;
    for (int i = 0; i < last; ++i) m.rows *= dim(i);
    return m;
  }
  // As few groups as the strides allow: all rows in one, else split at the last possible place.
  for (int split = 0; split <= last; ++split) {
    if (merge(shape(), strides(), 0, split, &m.batch, &m.batch_stride) &&
        merge(shape(), strides(), split, last, &m.rows, &m.row_stride)) {
      return m;
    }
  }
  MR_FAIL("rows of ", shape(), " with strides ", strides(), " are not two-strided: call contiguous()");
}

Mat<std::byte> Tensor::matrices_view() const {
  MR_CHECK(ndim() >= 2, "needs a matrix, got ", shape());
  const int last = ndim() - 1;
  MR_CHECK(dim(last) <= 1 || strides()[last] == 1, "the last dimension of ", shape(),
           " is strided: call contiguous()");
  Mat<std::byte> m{nullptr, 1, dim(last - 1), dim(last), 0, strides()[last - 1]};
  MR_CHECK(merge(shape(), strides(), 0, last - 1, &m.batch, &m.batch_stride), "the leading dimensions of ",
           shape(), " with strides ", strides(), " are not one stride: call contiguous()");
  return m;
}

Tensor Tensor::clone() const {
  Tensor out = empty_like(*this);
  copy_into(out, *this);
  return out;
}

Tensor Tensor::to(Device target) const {
  if (device() == target) return *this;
  Tensor out = empty(shape(), dtype(), target);
  copy_into(out, *this);
  return out;
}

Tensor Tensor::detach() const { return view(storage(), offset(), shape(), strides(), dtype()); }

void Tensor::fill(double value) {
  if (numel() == 0) return;
  if (!is_contiguous()) {
    Shape still = shape();
    for (int i = 0; i < still.ndim(); ++i) still.set(i, 0);
    const Tensor one = full({}, value, dtype(), device());
    return copy_into(*this, view(one.storage(), 0, shape(), still, dtype()));
  }
  const size_t bytes = static_cast<size_t>(numel()) * size_of(dtype());
  if (value == 0 && device().is_cpu()) {
    std::memset(raw_data(), 0, bytes);
  } else if (value == 0) {
    cuda::fill_bytes(raw_data(), 0, bytes);
  } else {
    dispatch_any(dtype(), [&]<class T>() {
      on_backend(device(),
                 [&](auto backend) { kernel::fill<T>(backend, numel(), static_cast<T>(value), data<T>()); });
    });
  }
  bump_version();
}

void Tensor::copy_from(const Tensor& source) { copy_into(*this, source); }

double Tensor::item() const {
  MR_CHECK(numel() == 1, "item() needs one element, got ", shape());
  return to_vector<double>()[0];
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  std::vector<T> out(static_cast<size_t>(numel()));
  const Tensor host = to(kCpu);
  const Tensor dense = host.is_contiguous() ? host : host.clone();
  dispatch_any(dtype(), [&]<class U>() {
    const U* p = dense.data<const U>();
    for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<T>(p[i]);
  });
  return out;
}
template std::vector<float> Tensor::to_vector() const;
template std::vector<double> Tensor::to_vector() const;
template std::vector<int32_t> Tensor::to_vector() const;
template std::vector<int64_t> Tensor::to_vector() const;
template std::vector<uint8_t> Tensor::to_vector() const;

Tensor empty(const Shape& shape, DType dtype, Device device) {
  shape.check_countable();
  const size_t bytes = static_cast<size_t>(shape.numel()) * size_of(dtype);
  return Tensor::view(std::make_shared<Storage>(bytes, device), 0, shape, dense_strides(shape), dtype);
}
Tensor full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor out = empty(shape, dtype, device);
  out.fill(value);
  return out;
}
Tensor zeros(const Shape& shape, DType dtype, Device device) { return full(shape, 0, dtype, device); }
Tensor ones(const Shape& shape, DType dtype, Device device) { return full(shape, 1, dtype, device); }
Tensor arange(int64_t count, Device device) {
  Tensor out = empty({count}, i64, device);
  on_backend(device, [&](auto backend) { kernel::count_up(backend, count, out.data<int64_t>()); });
  return out;
}
Tensor empty_like(const Tensor& x) { return empty(x.shape(), x.dtype(), x.device()); }
Tensor zeros_like(const Tensor& x) { return zeros(x.shape(), x.dtype(), x.device()); }

void check_same(const Tensor& a, const Tensor& b, const char* a_name, const char* b_name) {
  MR_CHECK(a.dtype() == b.dtype(), a_name, " is ", a.dtype(), " and ", b_name, " is ", b.dtype(),
           ": cast one explicitly");
  MR_CHECK(a.device() == b.device(), a_name, " is on ", a.device(), " and ", b_name, " on ", b.device());
}

}  // namespace mixrec
