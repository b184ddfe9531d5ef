// Global memory is the CPU's own; shared memory is a block's, and watched.
#pragma once

#include "arithmetic.hpp"

// ---- global

inline bool owned(const Machine& m, uint64_t address, uint64_t bytes) {
  auto after = std::upper_bound(m.regions.begin(), m.regions.end(), address,
                                [](uint64_t a, const Region& region) { return a < region.begin; });
  return after != m.regions.begin() && address + bytes <= std::prev(after)->end;
}
inline uint8_t* global(Machine& m, uint64_t address, int bytes) {
  if (!owned(m, address, bytes)) {
    m.fail("an access of " + std::to_string(bytes) + " bytes outside of every tensor");
  } else if (address % bytes) {
    m.fail("an access of " + std::to_string(bytes) + " bytes at an address they do not divide");
  } else {
    return reinterpret_cast<uint8_t*>(address);
  }
  return nullptr;
}

// ---- shared

inline bool within(Machine& m, uint64_t address, uint64_t bytes, uint64_t alignment) {
  if (address + bytes > m.shared.size()) return m.fail("an access outside of shared memory");
  if (address % alignment) return m.fail("a misaligned access to shared memory");
  return true;
}

// asynchronous: by a product or by TMA, which see plain stores only behind a proxy fence.
inline bool note_read(Machine& m, uint32_t address, uint32_t bytes, bool asynchronous = false) {
  for (uint32_t place = address / 2; place < (address + bytes + 1) / 2; ++place) {
    Track& t = m.track[place];
    if (t.written == m.epoch && t.writer && t.writer != m.warp + 1) {
      return m.fail("a race: another warp wrote this to shared memory since the last barrier");
    }
    if (asynchronous && t.unfenced && t.written >= m.self().fenced) {
      return m.fail("no proxy fence between a store to shared memory and a product or TMA");
    }
    if (t.read != m.epoch) t.read = m.epoch, t.readers = 0;
    t.readers |= 1u << m.warp;
  }
  return true;
}

// Several warps may write the same bytes: Triton lets all threads write what all of them hold.
inline bool note_write(Machine& m, uint32_t address, const uint8_t* bytes, uint32_t count,
                       bool plain) {
  uint32_t self = 1u << m.warp;
  for (uint32_t place = address / 2; place < (address + count + 1) / 2; ++place) {
    Track& t = m.track[place];
    if (t.in_flight) return m.fail("a race: an asynchronous product may still read this");
    bool others = t.written == m.epoch && t.writer && t.writer != m.warp + 1;
    uint32_t offset = 2 * place - address;
    if (others && bytes &&
        !std::memcmp(bytes + offset, &m.shared[2 * place], std::min(2u, count - offset))) {
      continue;
    }
    if (others) return m.fail("a race: another warp wrote here since the last barrier");
    if (t.read == m.epoch && t.readers & ~self) {
      return m.fail("a race: another warp read this since the last barrier");
    }
    t.written = m.epoch, t.writer = uint8_t(m.warp + 1);
    if (plain && !t.unfenced) m.self().unfenced.push_back(place);
    t.unfenced = plain;
  }
  return true;
}

inline bool store_shared(Machine& m, uint64_t address, const uint8_t* bytes, int count) {
  if (!within(m, address, count, count)) return false;
  if (!note_write(m, address, bytes, count, true)) return false;
  std::memcpy(&m.shared[address], bytes, count);
  return true;
}

// ---- instructions; an address is two operands: a register and a number

inline Lanes address_of(Machine& m, const Operand* operand) {
  Lanes to;
  read(m, operand[0], to);
  for (auto& address : to) address += operand[1].value;
  return to;
}

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
  for (int n = 0; n < count; ++n) write(m, out[n], values[n], mask);
  return true;
}

inline bool store(Machine& m, const Instruction& i, const Operand* in, uint32_t mask) {
  int size = kSize[i.type], count = i.inputs - 2;
  Lanes to = address_of(m, in);
  std::array<Lanes, 4> values;
  for (int n = 0; n < count; ++n) read(m, in[2 + n], values[n]);
  FOR_ACTIVE(mask) {
    uint8_t bytes[16];
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

inline bool add_shared(Machine& m, const Operand* in, const Operand* out, bool returns,
                       uint32_t mask) {
  Lanes to = address_of(m, in), terms, before{};
  read(m, in[2], terms);
  FOR_ACTIVE(mask) {
    uint32_t address = uint32_t(to[lane]), value;
    if (!within(m, address, 4, 4)) return false;
    std::memcpy(&value, &m.shared[address], 4);
    before[lane] = value;
    value += uint32_t(terms[lane]);
    std::memcpy(&m.shared[address], &value, 4);
    for (uint32_t place : {address / 2, address / 2 + 1}) {
      m.track[place].written = m.epoch, m.track[place].writer = 0;  // the order does not matter
    }
  }
  if (returns) write(m, out[0], before, mask);
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
