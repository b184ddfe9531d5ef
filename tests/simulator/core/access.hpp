// Instructions that load and store. An address is two operands: a register and a number.
#pragma once

#include "memory.hpp"

inline Lanes address_of(Machine& m, const Operand* operand) {
  Lanes to;
  read(m, operand[0], to);
  for (auto& address : to) address += operand[1].value;
  return to;
}

// A signed number fills the whole register, if that is wider.
inline bool load(Machine& m, const Instruction& i, const Operand* in, const Operand* out,
                 uint32_t mask) {
  int size = kSize[i.type], count = i.outputs;
  Lanes from = address_of(m, in);
  std::array<Lanes, 4> values{};
  FOR_ACTIVE(mask) {
    const uint8_t* p;
    if (i.operation == LOAD_GLOBAL) {
      p = global(m, from[lane], size * count);
      if (!p) return false;
    } else {
      uint32_t address = uint32_t(from[lane]);
      if (!within(m, address, size * count, size * count) || !note_read(m, address, size * count)) {
        return false;
      }
      p = &m.shared[address];
    }
    for (int n = 0; n < count; ++n) std::memcpy(&values[n][lane], p + n * size, size);
  }
  for (int n = 0; n < count; ++n) {
    if (is_signed(i.type)) for (auto& value : values[n]) value = uint64_t(extended(value, i.type));
    write(m, out[n], values[n], mask);
  }
  return true;
}

inline bool store(Machine& m, const Instruction& i, const Operand* in, uint32_t mask) {
  int size = kSize[i.type], count = i.inputs - 2;
  Lanes to = address_of(m, in);
  std::array<Lanes, 4> values;
  for (int n = 0; n < count; ++n) read(m, in[2 + n], values[n]);
  FOR_ACTIVE(mask) {
    uint8_t bytes[32];
    for (int n = 0; n < count; ++n) std::memcpy(bytes + n * size, &values[n][lane], size);
    if (i.operation == STORE_SHARED) {
      if (!store_shared(m, uint32_t(to[lane]), bytes, size * count)) return false;
    } else if (uint8_t* p = global(m, to[lane], size * count)) {
      std::memcpy(p, bytes, size * count);
    } else {
      return false;
    }
  }
  return true;
}

inline bool add_shared(Machine& m, const Operand* in, const Operand* out, uint32_t mask) {
  Lanes to = address_of(m, in), terms, before{};
  read(m, in[2], terms);
  FOR_ACTIVE(mask) {
    uint32_t address = uint32_t(to[lane]), value;
    if (!within(m, address, 4, 4) || !note_atomic(m, address, 4)) return false;
    std::memcpy(&value, &m.shared[address], 4);
    before[lane] = value;
    value += uint32_t(terms[lane]);
    std::memcpy(&m.shared[address], &value, 4);
  }
  write(m, out[0], before, mask);
  return true;
}

// Eight rows of 16 bytes, whose addresses eight threads give: thread t holds numbers 2t and 2t + 1.
// detail[0]: transposed.
inline bool load_matrix(Machine& m, const Instruction& i, const Operand* in, const Operand* out) {
  Lanes from = address_of(m, in), value;
  for (int n = 0; n < i.outputs; ++n) {
    uint16_t matrix[8][8];
    for (int row = 0; row < 8; ++row) {
      uint32_t address = uint32_t(from[8 * n + row]);
      if (!within(m, address, 16, 16) || !note_read(m, address, 16)) return false;
      std::memcpy(matrix[row], &m.shared[address], 16);
    }
    FOR_LANES {
      int row = lane / 4, column = lane % 4 * 2;
      value[lane] = i.detail[0] ? matrix[column][row] | uint32_t(matrix[column + 1][row]) << 16
                                : matrix[row][column] | uint32_t(matrix[row][column + 1]) << 16;
    }
    write(m, out[n], value, ~0u);
  }
  return true;
}
inline bool store_matrix(Machine& m, const Instruction& i, const Operand* in) {
  Lanes to = address_of(m, in), value;
  for (int n = 0; n < i.inputs - 2; ++n) {
    uint16_t matrix[8][8];
    read(m, in[2 + n], value);
    FOR_LANES {
      int row = lane / 4, column = lane % 4 * 2;
      for (int k = 0; k < 2; ++k) {
        (i.detail[0] ? matrix[column + k][row] : matrix[row][column + k]) = value[lane] >> 16 * k;
      }
    }
    for (int row = 0; row < 8; ++row) {
      const auto* bytes = reinterpret_cast<const uint8_t*>(matrix[row]);
      if (!store_shared(m, uint32_t(to[8 * n + row]), bytes, 16)) return false;
    }
  }
  return true;
}
