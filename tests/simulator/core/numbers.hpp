// What bits in a register mean, and conversions. A number lies in the low bits of 64, with zeros
// above it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "machine.hpp"

inline float as_float(uint64_t bits) {
  uint32_t low = uint32_t(bits);
  float value;
  std::memcpy(&value, &low, 4);
  return value;
}
inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
inline double as_double(uint64_t bits) {
  double value;
  std::memcpy(&value, &bits, 8);
  return value;
}
inline bool is_floating(int type) { return type >= F16 && type != PRED; }
inline bool is_signed(int type) { return type >= S8 && type <= S64; }
// Two halves of a register: the type of one, or the type itself.
inline int half_of(int type) { return type == F16X2 ? F16 : type == BF16X2 ? BF16 : type; }

inline double half_to_double(uint64_t bits) {
  int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double size = exponent == 31   ? (fraction ? NAN : INFINITY)
                : exponent == 0  ? std::ldexp(fraction, -24)
                                 : std::ldexp(1024 + fraction, exponent - 25);
  return bits & 0x8000 ? -size : size;
}
inline uint16_t to_half(float value) {
  uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  if (size >= 0x477ff000) return sign | 0x7c00;  // from the middle between the last and 2^16
  if (size < 0x38800000) return sign | uint16_t(std::nearbyint(std::ldexp(as_float(size), 24)));
  return sign | uint16_t((size + 0xfff + (size >> 13 & 1) - 0x38000000) >> 13);
}
inline double to_double(uint64_t bits, int type) {
  if (type == F64) return as_double(bits);
  if (type == F32) return as_float(bits);
  return type == BF16 ? as_float((bits & 0xffff) << 16) : half_to_double(bits);
}
inline uint64_t rounded(float value, int type) {  // to nearest, ties to even
  if (type == F32) return bits_of(value);
  if (std::isnan(value)) return 0x7fff;
  if (type == F16) return to_half(value);
  uint32_t bits = bits_of(value);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
// A sum in float32 that may be rounded once more, to fewer digits: what is lost shows in the last
// digit, which is then odd, so that no number falls on the middle between two.
inline float sum_to_odd(double a, double b) {
  double sum = a + b, part = sum - a, lost = (a - (sum - part)) + (b - part);
  float value = float(sum);
  double over = double(value) - sum;  // in float32, and in float64
  bool above = over != 0 ? over > 0 : lost < 0;
  if (!std::isfinite(sum) || (over == 0 && lost == 0) || bits_of(value) & 1) return value;
  return std::nextafter(value, above ? -INFINITY : INFINITY);
}
// .ftz: a float32 too small for its exponent counts as zero.
inline float flushed(float value) {
  uint32_t bits = bits_of(value);
  return bits & 0x7f800000 ? value : as_float(bits & 0x80000000);
}
// The products of the tensor cores read the upper 19 bits of a float32.
inline float tf32(uint64_t bits) { return as_float(bits & 0xffffe000u); }

inline uint64_t cut(uint64_t value, int type) {
  int bits = 8 * kSize[type];
  return bits == 64 ? value : value & ((uint64_t(1) << bits) - 1);
}
inline int64_t extended(uint64_t value, int type) {
  switch (type) {
    case S8: return int8_t(value);
    case S16: return int16_t(value);
    case S32: return int32_t(value);
    default: return int64_t(is_signed(type) ? value : cut(value, type));
  }
}

// cvt. detail: 0 whether to a whole number: 1 towards zero, 2 to the nearest, 3 down, 4 up; 1 whether
// negative numbers become 0; 2 whether subnormal ones do.
inline double to_whole(double value, int how) {
  switch (how) {
    case 1: return std::trunc(value);
    case 2: return std::nearbyint(value);
    case 3: return std::floor(value);
    default: return std::ceil(value);
  }
}
// A signed number fills the whole register, if that is wider.
inline uint64_t converted(const Instruction& i, uint64_t bits) {
  int to = i.type, from = i.source_type, how = i.detail[0];
  if (!is_floating(from)) {
    if (!is_floating(to)) return uint64_t(extended(uint64_t(extended(bits, from)), to));
    if (is_signed(from)) return rounded(float(extended(bits, from)), to);
    return rounded(float(cut(bits, from)), to);
  }
  double value = to_double(bits, from);
  if (i.detail[2] && from == F32) value = flushed(float(value));
  if (how) value = to_whole(value, how);
  if (i.detail[1] && value < 0) value = 0;
  if (is_floating(to)) return rounded(float(value), to);
  if (std::isnan(value)) return kSize[to] == 8 ? uint64_t(1) << 63 : 0;
  // Whole numbers stop at the ends of their range.
  int width = 8 * kSize[to] - is_signed(to);
  double end = std::ldexp(1.0, width), first = is_signed(to) ? -end : 0.0;
  if (value >= end) return ~uint64_t(0) >> (64 - width);
  if (value <= first) return is_signed(to) ? ~uint64_t(0) << width : 0;
  return value < 0 ? uint64_t(int64_t(value)) : uint64_t(value);
}
// Of two float32 into one register, the second below.
inline uint64_t converted_pair(const Instruction& i, uint64_t above, uint64_t below) {
  Instruction one = i;
  one.type = half_of(i.type);
  return converted(one, above) << 16 | converted(one, below);
}
