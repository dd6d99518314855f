#include "mixrec/core/hash.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>

namespace mixrec {

namespace {

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87, kPrime2 = 0xC2B2AE3D27D4EB4F, kPrime3 = 0x165667B19E3779F9,
                   kPrime4 = 0x85EBCA77C2B2AE63, kPrime5 = 0x27D4EB2F165667C5;

template <class T>
uint64_t load(const unsigned char* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

uint64_t round_of(uint64_t lane, uint64_t input) { return std::rotl(lane + input * kPrime2, 31) * kPrime1; }

void take_stripe(uint64_t* lanes, const unsigned char* from) {
  for (int l = 0; l < 4; ++l) lanes[l] = round_of(lanes[l], load<uint64_t>(from + 8 * l));
}

}  // namespace

Hasher::Hasher(uint64_t seed)
    : seed_(seed), lanes_{seed + kPrime1 + kPrime2, seed + kPrime2, seed, seed - kPrime1}, rest_{} {}

void Hasher::update(const void* data, size_t bytes) {
  const auto* from = static_cast<const unsigned char*>(data);
  total_ += bytes;
  if (in_rest_ > 0) {
    const size_t taken = std::min(bytes, sizeof rest_ - in_rest_);
    if (taken > 0) std::memcpy(rest_ + in_rest_, from, taken);
    in_rest_ += taken, from += taken, bytes -= taken;
    if (in_rest_ < sizeof rest_) return;
    take_stripe(lanes_, rest_);
    in_rest_ = 0;
  }
  for (; bytes >= sizeof rest_; from += sizeof rest_, bytes -= sizeof rest_) take_stripe(lanes_, from);
  if (bytes > 0) std::memcpy(rest_, from, bytes);
  in_rest_ = bytes;
}

uint64_t Hasher::digest() const {
  uint64_t hash = seed_ + kPrime5;
  if (total_ >= sizeof rest_) {
    hash = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) +
           std::rotl(lanes_[3], 18);
    for (const uint64_t lane : lanes_) hash = (hash ^ round_of(0, lane)) * kPrime1 + kPrime4;
  }
  hash += total_;
  const unsigned char *at = rest_, *end = rest_ + in_rest_;
  for (; end - at >= 8; at += 8)
    hash = std::rotl(hash ^ round_of(0, load<uint64_t>(at)), 27) * kPrime1 + kPrime4;
  for (; end - at >= 4; at += 4)
    hash = std::rotl(hash ^ (load<uint32_t>(at) * kPrime1), 23) * kPrime2 + kPrime3;
  for (; at < end; ++at) hash = std::rotl(hash ^ (*at * kPrime5), 11) * kPrime1;
  hash = (hash ^ (hash >> 33)) * kPrime2;
  hash = (hash ^ (hash >> 29)) * kPrime3;
  return hash ^ (hash >> 32);
}

uint64_t hash_bytes(const void* data, size_t bytes) {
  Hasher hasher;
  hasher.update(data, bytes);
  return hasher.digest();
}

std::string hash_digits(uint64_t hash) {
  char text[20];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

}  // namespace mixrec
