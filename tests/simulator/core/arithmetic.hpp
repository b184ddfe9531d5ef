// Arithmetic on registers. A number lies in the low bits of 64, with zeros above it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "program.hpp"

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

inline float extreme(float a, float b, bool largest, bool keeps_nan) {
  if (std::isnan(a) || std::isnan(b)) {
    return keeps_nan || (std::isnan(a) && std::isnan(b)) ? NAN : std::isnan(a) ? b : a;
  }
  if (a == b) return std::signbit(a) == largest ? b : a;  // -0 is less than 0
  return (a < b) == largest ? b : a;
}

inline bool floating_binary(Machine& m, const Instruction& i, uint64_t x, uint64_t y,
                            uint64_t& to) {
  int one = half_of(i.type), parts = one == i.type ? 1 : 2, width = 8 * kSize[one];
  to = 0;
  for (int part = 0; part < parts; ++part) {
    float a = float(to_double(x >> part * width, one));
    float b = float(to_double(y >> part * width, one)), value;
    switch (i.operation) {
      case ADD: value = a + b; break;
      case SUB: value = a - b; break;
      case MUL: value = a * b; break;
      case DIV: value = a / b; break;
      case MIN: value = extreme(a, b, false, i.detail[0]); break;
      case MAX: value = extreme(a, b, true, i.detail[0]); break;
      default: return m.fail("floating-point operation " + std::to_string(i.operation));
    }
    to |= rounded(value, one) << part * width;
  }
  return true;
}

// detail[0] of a product: 0 its low half, 1 twice as wide, 2 its high half.
inline uint64_t product(uint64_t x, uint64_t y, int type, int part) {
  __int128 whole = is_signed(type) ? __int128(extended(x, type)) * extended(y, type)
                                   : __int128((unsigned __int128)(cut(x, type)) * cut(y, type));
  if (part == 1) return uint64_t(whole);
  return cut(uint64_t(part == 0 ? whole : whole >> 8 * kSize[type]), type);
}

inline bool integer_binary(Machine& m, const Instruction& i, uint64_t x, uint64_t y, uint64_t& to) {
  int type = i.type;
  uint64_t bits = 8 * kSize[type], count = uint32_t(y);
  bool less = is_signed(type) ? extended(x, type) < extended(y, type) : cut(x, type) < cut(y, type);
  switch (i.operation) {
    case ADD: to = x + y; break;
    case SUB: to = x - y; break;
    case AND: to = x & y; break;
    case OR: to = x | y; break;
    case XOR: to = x ^ y; break;
    case MIN: to = less ? x : y; break;
    case MAX: to = less ? y : x; break;
    case SHL: to = count >= bits ? 0 : x << count; break;
    case SHR:
      if (is_signed(type)) {
        to = uint64_t(extended(x, type) >> std::min(count, bits - 1));
      } else {
        to = count >= bits ? 0 : cut(x, type) >> count;
      }
      break;
    case MUL: case MAD: to = product(x, y, type, i.detail[0]); return true;  // may be wider
    case DIV: case REM: {
      int64_t a = extended(x, type), b = extended(y, type);
      if (b == 0) return m.fail("division by 0");
      if (is_signed(type)) to = uint64_t(i.operation == DIV ? a / b : a % b);
      else to = i.operation == DIV ? uint64_t(a) / uint64_t(b) : uint64_t(a) % uint64_t(b);
      break;
    }
    default: return m.fail("integer operation " + std::to_string(i.operation));
  }
  bool relu = (i.operation == MIN || i.operation == MAX) && i.detail[1];
  to = relu && extended(to, type) < 0 ? 0 : cut(to, type);
  return true;
}

inline bool binary(Machine& m, const Instruction& i, const Lanes& x, const Lanes& y, Lanes& to,
                   uint32_t mask) {
  bool floating = is_floating(i.type);
  FOR_ACTIVE(mask) {
    auto one = floating ? floating_binary : integer_binary;
    if (!one(m, i, x[lane], y[lane], to[lane])) return false;
  }
  return true;
}

template <class Number>
bool compares(int how, Number a, Number b) {
  bool unordered = a != a || b != b;
  switch (how) {
    case EQ: return a == b;
    case NE: return !unordered && a != b;
    case LT: return a < b;
    case LE: return a <= b;
    case GT: return a > b;
    case GE: return a >= b;
    case EQU: return unordered || a == b;
    case NEU: return a != b;
    case LTU: return unordered || a < b;
    case LEU: return unordered || a <= b;
    case GTU: return unordered || a > b;
    case GEU: return unordered || a >= b;
    case NUM: return !unordered;
    default: return unordered;
  }
}
inline bool compared(const Instruction& i, uint64_t x, uint64_t y, int type) {
  int how = i.detail[0];
  if (!is_floating(type)) {
    if (is_signed(type)) return compares(how, extended(x, type), extended(y, type));
    return compares(how, cut(x, type), cut(y, type));
  }
  return compares(how, to_double(x, type), to_double(y, type));
}

// detail[0]: 0 to nearest or none, 1 towards zero, 2 to nearest, 3 down, 4 up; detail[1]: ReLU.
inline double to_whole(double value, int how) {
  switch (how) {
    case 1: return std::trunc(value);
    case 2: return std::nearbyint(value);
    case 3: return std::floor(value);
    default: return std::ceil(value);
  }
}
inline uint64_t converted(const Instruction& i, uint64_t bits) {
  int to = i.type, from = i.source_type, how = i.detail[0];
  if (!is_floating(from)) {
    if (!is_floating(to)) return cut(uint64_t(extended(bits, from)), to);
    if (is_signed(from)) return rounded(float(extended(bits, from)), to);
    return rounded(float(cut(bits, from)), to);
  }
  double value = to_double(bits, from);
  if (how) value = to_whole(value, how);
  if (i.detail[1] && value < 0) value = 0;
  if (is_floating(to)) return rounded(float(value), to);
  if (std::isnan(value)) return 0;
  // Whole numbers stop at the ends of their range.
  int width = 8 * kSize[to] - is_signed(to);
  double end = std::ldexp(1.0, width), first = is_signed(to) ? -end : 0.0;
  if (value >= end) return ~uint64_t(0) >> (64 - width);
  if (value <= first) return is_signed(to) ? uint64_t(1) << width : 0;
  return cut(value < 0 ? uint64_t(int64_t(value)) : uint64_t(value), to);
}

// `length` bits from `begin`; of a signed number they are extended by the last.
inline uint64_t field(uint64_t value, uint32_t begin, uint32_t length, int type) {
  begin &= 255, length &= 255;
  uint32_t bits = 8 * kSize[type];
  if (length == 0) return 0;
  if (!is_signed(type)) {
    if (begin >= bits) return 0;
    return length >= 64 ? value >> begin : (value >> begin) & ((uint64_t(1) << length) - 1);
  }
  int64_t whole = extended(value, type);
  uint32_t last = std::min(begin + length - 1, bits - 1);
  int64_t upper = int64_t(uint64_t(whole) << (63 - last));  // its sign is bit `last`
  uint32_t drop = 63 - last + std::min(begin, last);
  if (begin >= bits) return cut(uint64_t(upper >> 63), type);
  return cut(uint64_t(upper >> drop), type);
}
inline uint64_t picked_bytes(uint64_t low, uint64_t high, uint64_t which) {
  uint64_t bytes = uint32_t(low) | high << 32, to = 0;
  for (int n = 0; n < 4; ++n) {
    int code = which >> 4 * n & 15;
    uint8_t byte = uint8_t(bytes >> 8 * (code & 7));
    if (code & 8) byte = byte & 0x80 ? 0xff : 0;
    to |= uint64_t(byte) << 8 * n;
  }
  return to;
}
