// Copies into shared memory that are under way while a warp goes on: cp.async.
//
// A copy lands at the last moment, when somebody waits for it; until then its place holds NaN. So
// whoever reads too early gets NaN, and whoever still needs what was there before loses it.
#pragma once

#include "access.hpp"

inline void land(Machine& m, const Copy& copy) {
  std::memcpy(&m.shared[copy.to], copy.bytes.data(), copy.bytes.size());
}

// Operands: the address there, the address here, and how many bytes are not 0.
inline bool copy(Machine& m, const Instruction& i, const Operand* in, uint32_t mask) {
  uint32_t bytes = i.detail[0];
  Lanes to = address_of(m, in), from = address_of(m, in + 2), wanted;
  wanted.fill(bytes);
  if (i.inputs > 4) read(m, in[4], wanted);
  FOR_ACTIVE(mask) {
    Copy one{uint32_t(to[lane]), std::vector<uint8_t>(bytes)};
    uint32_t some = std::min(uint32_t(wanted[lane]), bytes);
    if (!within(m, one.to, bytes, bytes)) return false;
    if (some && !owned(m, from[lane], some)) return m.fail("a copy from outside of every tensor");
    if (some && from[lane] % bytes) return m.fail("a copy from a misaligned address");
    if (!note_write(m, one.to, nullptr, bytes, false)) return false;
    std::memcpy(one.bytes.data(), reinterpret_cast<const uint8_t*>(from[lane]), some);
    std::memset(&m.shared[one.to], 0xff, bytes);
    m.self().copies.push_back(std::move(one));
  }
  return true;
}
inline void commit_copies(Machine& m) {
  m.self().copy_groups.push_back(std::move(m.self().copies));
  m.self().copies.clear();
}
inline bool wait_copies(Machine& m, size_t left) {
  auto& groups = m.self().copy_groups;
  while (groups.size() > left) {
    for (const Copy& copy : groups.front()) {
      if (!note_write(m, copy.to, nullptr, copy.bytes.size(), false)) return false;
      land(m, copy);
    }
    groups.erase(groups.begin());
  }
  return true;
}
