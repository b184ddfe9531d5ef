// What the threads of a warp tell each other. All 32 take part: step() sees to it.
#pragma once

#include "arithmetic.hpp"

// The last operand is a mask of the threads that take part.
inline bool names_all(Machine& m, const Instruction& i, const Operand* in) {
  Lanes mask;
  read(m, in[i.inputs - 1], mask);
  FOR_LANES {
    if (uint32_t(mask[lane]) != ~0u) return m.fail("only some threads of a warp take part");
  }
  return true;
}

// detail[0]: 0 up, 1 down, 2 butterfly, 3 index.
inline void shuffle(Machine& m, const Instruction& i, const Operand* in, const Operand* out) {
  Lanes value, by, bounds, to;
  read(m, in[0], value), read(m, in[1], by), read(m, in[2], bounds);
  FOR_LANES {
    int clamp = bounds[lane] & 31, segment = bounds[lane] >> 8 & 31, b = by[lane] & 31;
    int most = (lane & segment) | (clamp & ~segment), from;
    switch (i.detail[0]) {
      case 0: from = lane - b; break;
      case 1: from = lane + b; break;
      case 2: from = lane ^ b; break;
      default: from = (lane & segment) | (b & ~segment);
    }
    bool stays = i.detail[0] == 0 ? from < most : from > most;
    to[lane] = value[stays ? lane : from];
  }
  write(m, out[0], to, ~0u);
}

inline void ballot(Machine& m, const Operand* in, const Operand* out) {
  Lanes value, to;
  read(m, in[0], value);
  uint32_t bits = 0;
  FOR_LANES bits |= uint32_t(value[lane] & 1) << lane;
  to.fill(bits);
  write(m, out[0], to, ~0u);
}

// detail[0]: 0 sum, 1 largest, 2 smallest, 3 and, 4 or, 5 exclusive or.
inline void reduce(Machine& m, const Instruction& i, const Operand* in, const Operand* out) {
  Lanes value, to;
  read(m, in[0], value);
  uint32_t all = uint32_t(value[0]);
  for (int lane = 1; lane < kLanes; ++lane) {
    uint32_t other = uint32_t(value[lane]);
    bool less = is_signed(i.type) ? int32_t(other) < int32_t(all) : other < all;
    switch (i.detail[0]) {
      case 0: all += other; break;
      case 1: all = less ? all : other; break;
      case 2: all = less ? other : all; break;
      case 3: all &= other; break;
      case 4: all |= other; break;
      default: all ^= other;
    }
  }
  to.fill(all);
  write(m, out[0], to, ~0u);
}

// Which thread, and whether this is it.
inline void elect(Machine& m, const Operand* out) {
  Lanes to{};
  write(m, out[0], to, ~0u);
  to[0] = 1;
  write(m, out[1], to, ~0u);
}
