// Arithmetic on two registers, comparisons, and fields of bits.
#pragma once

#include "numbers.hpp"

template <class Number>
Number extreme(Number a, Number b, bool largest, bool keeps_nan) {
  if (std::isnan(a) || std::isnan(b)) {
    return keeps_nan || (std::isnan(a) && std::isnan(b)) ? NAN : std::isnan(a) ? b : a;
  }
  if (a == b) return std::signbit(a) == largest ? b : a;  // -0 is less than 0
  return (a < b) == largest ? b : a;
}

// detail: 0 whether NaN wins (min, max), or a product's part; 1 whether negative numbers become 0;
// 2 whether subnormal ones do.
inline bool floating_binary(Machine& m, const Instruction& i, uint64_t x, uint64_t y,
                            uint64_t& to) {
  if (i.type == F64) {
    if (i.operation != MIN && i.operation != MAX) {
      return m.fail("operation " + std::to_string(i.operation) + " in float64");
    }
    double value = extreme(as_double(x), as_double(y), i.operation == MAX, false);
    std::memcpy(&to, &value, sizeof to);
    return true;
  }
  int one = half_of(i.type), parts = one == i.type ? 1 : 2, width = 8 * kSize[one];
  bool flushes = i.detail[2];
  to = 0;
  for (int part = 0; part < parts; ++part) {
    float a = float(to_double(x >> part * width, one));
    float b = float(to_double(y >> part * width, one)), value;
    if (flushes) a = flushed(a), b = flushed(b);
    switch (i.operation) {
      case ADD: value = a + b; break;
      case SUB: value = a - b; break;
      case MUL: value = a * b; break;
      case DIV: value = a / b; break;
      case MIN: value = extreme(a, b, false, i.detail[0]); break;
      case MAX: value = extreme(a, b, true, i.detail[0]); break;
      default: return m.fail("floating-point operation " + std::to_string(i.operation));
    }
    to |= rounded(flushes ? flushed(value) : value, one) << part * width;
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
      if (is_signed(type) && b == -1) to = i.operation == DIV ? -x : 0;  // the least has no inverse
      else if (is_signed(type)) to = uint64_t(i.operation == DIV ? a / b : a % b);
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
  double a = to_double(x, type), b = to_double(y, type);
  return i.detail[2] ? compares(how, flushed(float(a)), flushed(float(b))) : compares(how, a, b);
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
