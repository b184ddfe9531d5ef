// Instructions with registers in and registers out, of each thread for itself.
#pragma once

#include "arithmetic.hpp"

inline uint64_t fused(const Instruction& i, uint64_t a, uint64_t b, uint64_t c) {
  if (i.type != F32) {
    double product = to_double(a, i.type) * to_double(b, i.type);  // without an error
    return rounded(sum_to_odd(product, to_double(c, i.type)), i.type);
  }
  float x = as_float(a), y = as_float(b), z = as_float(c);
  if (!i.detail[2]) return bits_of(std::fma(x, y, z));
  return bits_of(flushed(std::fma(flushed(x), flushed(y), flushed(z))));
}

inline uint64_t without_sign(const Instruction& i, uint64_t value, bool negated) {
  if (!is_floating(i.type)) {
    bool negative = extended(value, i.type) < 0;
    return cut(negated || negative ? -value : value, i.type);
  }
  if (i.detail[2]) value = bits_of(flushed(as_float(value)));
  int half = half_of(i.type);
  uint64_t sign = uint64_t(1) << (8 * kSize[half] - 1);
  if (half != i.type) sign |= sign << 16;
  return negated ? value ^ sign : value & ~sign;
}

inline void set_predicate(Machine& m, const Instruction& i, const Lanes& a, const Lanes& b,
                          const Operand* out, uint32_t mask) {
  Lanes to{};
  int type = half_of(i.type);
  for (int n = 0; n < i.outputs; ++n) {  // of two halves, one each
    FOR_LANES to[lane] = compared(i, a[lane] >> 16 * n, b[lane] >> 16 * n, type);
    write(m, out[n], to, mask);
  }
}

// Of one register, or several numbers side by side in one.
inline void move(Machine& m, const Instruction& i, const Operand* in, const Operand* out,
                 uint32_t mask) {
  Lanes value, to{};
  int parts = std::max(i.inputs, i.outputs), bits = 8 * kSize[i.type] / parts;
  if (parts == 1) {
    read(m, in[0], to);
  } else if (i.outputs > 1) {
    read(m, in[0], value);
    for (int n = 0; n < parts; ++n) {
      FOR_LANES to[lane] = value[lane] >> bits * n & ((uint64_t(1) << bits) - 1);
      write(m, out[n], to, mask);
    }
    return;
  } else {
    for (int n = 0; n < parts; ++n) {
      read(m, in[n], value);
      FOR_LANES to[lane] |= (value[lane] & ((uint64_t(1) << bits) - 1)) << bits * n;
    }
  }
  write(m, out[0], to, mask);
}

inline void load_parameter(Machine& m, const Instruction& i, const Operand* in, const Operand* out,
                           uint32_t mask) {
  int size = kSize[i.type];
  Lanes to;
  for (int n = 0; n < i.outputs; ++n) {
    uint64_t value = 0;
    std::memcpy(&value, m.parameters + in[0].value + n * size, size);
    to.fill(is_signed(i.type) ? uint64_t(extended(value, i.type)) : value);
    write(m, out[n], to, mask);
  }
}

inline bool compute(Machine& m, const Instruction& i, const Operand* in, const Operand* out,
                    uint32_t mask) {
  Lanes a, b, c, to{};
  if (i.inputs > 0) read(m, in[0], a);
  if (i.inputs > 1) read(m, in[1], b);
  if (i.inputs > 2) read(m, in[2], c);
  bool flushes = i.detail[2];
  switch (i.operation) {
    case MAD:
      if (!binary(m, i, a, b, to, mask)) return false;
      FOR_LANES to[lane] = i.detail[0] == 1 ? to[lane] + c[lane] : cut(to[lane] + c[lane], i.type);
      break;
    case FMA: FOR_LANES to[lane] = fused(i, a[lane], b[lane], c[lane]); break;
    case NEG: FOR_LANES to[lane] = without_sign(i, a[lane], true); break;
    case ABS: FOR_LANES to[lane] = without_sign(i, a[lane], false); break;
    case NOT: FOR_LANES to[lane] = i.type == PRED ? !a[lane] : cut(~a[lane], i.type); break;
    case POPC: FOR_LANES to[lane] = __builtin_popcountll(cut(a[lane], i.type)); break;
    case BFE:
      FOR_LANES to[lane] = field(a[lane], uint32_t(b[lane]), uint32_t(c[lane]), i.type);
      break;
    case PRMT: FOR_LANES to[lane] = picked_bytes(a[lane], b[lane], c[lane]); break;
    case SHF:  // the upper half of two registers, the second above
      FOR_LANES to[lane] = (b[lane] << 32 | uint32_t(a[lane])) << (c[lane] & 31) >> 32;
      break;
    case EX2:
      FOR_LANES {
        float power = as_float(a[lane]);
        power = flushes ? flushed(std::exp2(flushed(power))) : std::exp2(power);
        to[lane] = bits_of(power);
      }
      break;
    case SELP: FOR_LANES to[lane] = c[lane] & 1 ? a[lane] : b[lane]; break;
    case CVT:
      if (half_of(i.type) != i.type) {
        FOR_LANES to[lane] = converted_pair(i, a[lane], b[lane]);
      } else {
        FOR_LANES to[lane] = converted(i, a[lane]);
      }
      break;
    case SETP: set_predicate(m, i, a, b, out, mask); return true;
    case MOV: move(m, i, in, out, mask); return true;
    case LOAD_PARAMETER: load_parameter(m, i, in, out, mask); return true;
    default:
      if (!binary(m, i, a, b, to, mask)) return false;
  }
  write(m, out[0], to, mask);
  return true;
}
