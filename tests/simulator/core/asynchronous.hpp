// What is under way while a warp goes on: copies into shared memory, and barriers that count them.
//
// A copy lands at the last moment, when somebody waits for it; until then its place holds NaN. So
// whoever reads too early gets NaN, and whoever still needs what was there before loses it.
#pragma once

#include "memory.hpp"

inline void land(Machine& m, const Copy& copy) {
  std::memcpy(&m.shared[copy.to], copy.bytes.data(), copy.bytes.size());
}

// ---- cp.async: operands are the address there, the address here, and how many bytes are not 0

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

// ---- mbarriers and TMA

inline Barrier* barrier_at(Machine& m, uint64_t address) {
  auto found = m.barriers.find(uint32_t(address));
  if (found != m.barriers.end()) return &found->second;
  m.fail("no barrier was set up at this address");
  return nullptr;
}
inline void advance(Barrier& barrier) {
  if (barrier.pending > 0 || barrier.bytes != 0) return;
  barrier.phase ^= 1;
  barrier.pending = barrier.expected;
}

inline bool init_barrier(Machine& m, const Operand* in, uint32_t mask) {
  Lanes at = address_of(m, in), count;
  read(m, in[2], count);
  FOR_ACTIVE(mask) m.barriers[uint32_t(at[lane])] = {int(count[lane]), int(count[lane]), 0, 0, {}};
  return true;
}
inline bool invalidate_barrier(Machine& m, const Operand* in, uint32_t mask) {
  Lanes at = address_of(m, in);
  FOR_ACTIVE(mask) {
    Barrier* barrier = barrier_at(m, at[lane]);
    if (!barrier) return false;
    if (!barrier->copies.empty()) return m.fail("a barrier ends before the copies that it counts");
    m.barriers.erase(uint32_t(at[lane]));
  }
  return true;
}
inline bool expect_bytes(Machine& m, const Operand* in, uint32_t mask) {
  Lanes at = address_of(m, in), bytes;
  read(m, in[2], bytes);
  FOR_ACTIVE(mask) {
    Barrier* barrier = barrier_at(m, at[lane]);
    if (!barrier) return false;
    barrier->bytes += int64_t(bytes[lane]);
    --barrier->pending;
    advance(*barrier);
  }
  return true;
}
// Whether the phase of this parity is over; if not, the warp lets the others run.
inline bool try_wait(Machine& m, const Operand* in, const Operand* out, uint32_t mask) {
  Lanes at = address_of(m, in), parity, over{};
  read(m, in[2], parity);
  FOR_ACTIVE(mask) {
    Barrier* barrier = barrier_at(m, at[lane]);
    if (!barrier) return false;
    if (barrier->phase == int(parity[lane] & 1)) {
      for (const Copy& copy : barrier->copies) {
        land(m, copy);
        barrier->bytes -= int64_t(copy.bytes.size());
        for (size_t place = copy.to / 2; place < (copy.to + copy.bytes.size()) / 2; ++place) {
          m.track[place].writer = 0;
        }
      }
      barrier->copies.clear();
      advance(*barrier);
    }
    over[lane] = barrier->phase != int(parity[lane] & 1);
    if (!over[lane]) m.self().state = Warp::SPINS;
  }
  write(m, out[0], over, mask);
  return true;
}

// Rows of a tile lie side by side; within 8 rows of 128 bytes, pieces of 16 change places (likewise
// for 64 and 32 bytes). mode: that of a product's descriptor, 1 for 128 bytes, 2 for 64, 3 for 32.
inline uint32_t swizzled(uint32_t address, int mode) {
  constexpr uint32_t bits[] = {0, 7, 3, 1};
  return address ^ (address >> 7 & bits[mode]) << 4;
}

// Operands: where to, the map's address, the barrier, and the tile's first column and row.
inline bool copy_tile(Machine& m, const Instruction&, const Operand* in, uint32_t mask) {
  Lanes to = address_of(m, in), map_at, barrier_address = address_of(m, in + 3), column, row;
  read(m, in[2], map_at), read(m, in[5], column), read(m, in[6], row);
  FOR_ACTIVE(mask) {
    TileMap map;
    std::memcpy(&map, reinterpret_cast<const void*>(map_at[lane]), sizeof map);
    Barrier* barrier = barrier_at(m, barrier_address[lane]);
    if (!barrier) return false;
    uint32_t width = map.box[0] * map.itemsize, total = width * map.box[1];
    uint32_t widest = 16u << map.swizzle;  // 1: 32 bytes, 2: 64, 3: 128
    if (map.swizzle && width > widest) return m.fail("a tile wider than its swizzle");
    if (!within(m, to[lane], total, map.swizzle ? 8 * widest : 128)) return false;
    Copy tile{uint32_t(to[lane]), std::vector<uint8_t>(total)};
    for (uint32_t r = 0; r < map.box[1]; ++r) {
      for (uint32_t c = 0; c < map.box[0]; ++c) {
        int64_t y = int32_t(row[lane]) + int64_t(r), x = int32_t(column[lane]) + int64_t(c);
        if (y < 0 || y >= map.sizes[1] || x < 0 || x >= map.sizes[0]) continue;  // zeros
        uint64_t from = map.address + y * map.stride + x * map.itemsize;
        if (!owned(m, from, map.itemsize)) return m.fail("TMA reads outside of every tensor");
        uint32_t place = tile.to + r * width + c * map.itemsize;
        place = swizzled(place, map.swizzle ? 4 - map.swizzle : 0) - tile.to;
        std::memcpy(&tile.bytes[place], reinterpret_cast<const void*>(from), map.itemsize);
      }
    }
    if (!note_write(m, tile.to, nullptr, total, false)) return false;
    std::memset(&m.shared[tile.to], 0xff, total);
    barrier->copies.push_back(std::move(tile));
  }
  return true;
}

inline bool fence_proxy(Machine& m) {
  for (uint32_t place : m.self().unfenced) m.track[place].unfenced = false;
  m.self().unfenced.clear();
  m.self().fenced = m.epoch;
  return true;
}
