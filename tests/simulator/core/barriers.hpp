// Barriers in shared memory (mbarrier), and the tiles of TMA, whose bytes they count.
#pragma once

#include "copies.hpp"

constexpr uint32_t kBarrierBytes = 8;

// What lies here is looked at as a load would be: whoever set it up is behind a bar.sync.
inline Barrier* barrier_at(Machine& m, uint64_t address) {
  auto found = m.barriers.find(uint32_t(address));
  if (found == m.barriers.end()) {
    m.fail("no barrier was set up at this address");
    return nullptr;
  }
  return note_read(m, uint32_t(address), kBarrierBytes) ? &found->second : nullptr;
}
inline void mark_barrier(Machine& m, uint32_t address, bool there) {
  Places places(m, address, kBarrierBytes);
  for (uint32_t place = places.first; place < places.last; ++place) m.track[place].barrier = there;
}
inline uint32_t new_landing(Machine& m) {
  m.landings.push_back({});
  return uint32_t(m.landings.size()) - 1;
}
inline void advance(Machine& m, Barrier& barrier) {
  if (barrier.pending > 0 || barrier.bytes != 0) return;
  barrier.phase ^= 1;
  barrier.pending = barrier.expected;
  barrier.last = barrier.landing;
  barrier.landing = new_landing(m);
  m.moved = true;
}

inline bool init_barrier(Machine& m, const Operand* in, uint32_t mask) {
  Lanes at = address_of(m, in), count;
  read(m, in[2], count);
  FOR_ACTIVE(mask) {
    uint32_t address = uint32_t(at[lane]);
    if (!within(m, address, kBarrierBytes, kBarrierBytes)) return false;
    if (!note_write(m, address, nullptr, kBarrierBytes, true)) return false;
    int expected = int(count[lane]);
    if (expected < 1) return m.fail("a barrier that waits for nobody");
    mark_barrier(m, address, true);
    m.barriers[address] = {expected, expected, 0, 0, {}, new_landing(m), new_landing(m)};
  }
  return true;
}
inline bool invalidate_barrier(Machine& m, const Operand* in, uint32_t mask) {
  Lanes at = address_of(m, in);
  FOR_ACTIVE(mask) {
    uint32_t address = uint32_t(at[lane]);
    Barrier* barrier = barrier_at(m, address);
    if (!barrier) return false;
    if (!barrier->copies.empty()) return m.fail("a barrier ends before the copies that it counts");
    m.barriers.erase(address);
    mark_barrier(m, address, false);
    if (!note_write(m, address, nullptr, kBarrierBytes, true)) return false;
  }
  return true;
}
inline bool expect_bytes(Machine& m, const Operand* in, uint32_t mask) {
  Lanes at = address_of(m, in), bytes;
  read(m, in[2], bytes);
  FOR_ACTIVE(mask) {
    Barrier* barrier = barrier_at(m, at[lane]);
    if (!barrier) return false;
    if (barrier->pending == 0) {
      return m.fail("more arrivals than the barrier waits for, or before its last phase was over");
    }
    barrier->bytes += int64_t(bytes[lane]);
    --barrier->pending;
    advance(m, *barrier);
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
    int phase = int(parity[lane] & 1);
    if (barrier->phase == phase) {
      for (const Copy& copy : barrier->copies) {
        land(m, copy);
        barrier->bytes -= int64_t(copy.bytes.size());
      }
      barrier->copies.clear();
      advance(m, *barrier);
    }
    over[lane] = barrier->phase != phase;
    if (over[lane]) {
      Landing& landing = m.landings[barrier->last];
      if (!landing.epoch) landing.epoch = m.epoch, m.moved = true;
      landing.warps |= m.bit();
    } else {
      m.self().waits_in_vain = true;
    }
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

// The tile's bytes as they will lie; what is outside of the matrix is 0.
inline bool tile_of(Machine& m, const TileMap& map, int32_t column, int32_t row, Copy& tile) {
  uint32_t width = map.box[0] * map.itemsize;
  for (uint32_t r = 0; r < map.box[1]; ++r) {
    for (uint32_t c = 0; c < map.box[0]; ++c) {
      int64_t y = row + int64_t(r), x = column + int64_t(c);
      if (y < 0 || y >= map.sizes[1] || x < 0 || x >= map.sizes[0]) continue;
      uint64_t from = map.address + y * map.stride + x * map.itemsize;
      if (!owned(m, from, map.itemsize)) return m.fail("TMA reads outside of every tensor");
      uint32_t place = tile.to + r * width + c * map.itemsize;
      place = swizzled(place, map.swizzle ? 4 - map.swizzle : 0) - tile.to;
      std::memcpy(&tile.bytes[place], reinterpret_cast<const void*>(from), map.itemsize);
    }
  }
  return true;
}
// Operands: where to, the map's address, the barrier, and the tile's first column and row.
inline bool copy_tile(Machine& m, const Operand* in, uint32_t mask) {
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
    uint32_t address = uint32_t(to[lane]);
    if (!within(m, address, total, map.swizzle ? 8 * widest : 128)) return false;
    Copy tile{address, std::vector<uint8_t>(total)};
    if (!tile_of(m, map, int32_t(column[lane]), int32_t(row[lane]), tile)) return false;
    if (!note_write(m, address, nullptr, total, false)) return false;
    Places places(m, address, total);
    for (uint32_t place = places.first; place < places.last; ++place) {
      m.track[place].writer = TMA, m.track[place].landing = barrier->landing;
    }
    std::memset(&m.shared[address], 0xff, total);
    barrier->copies.push_back(std::move(tile));
  }
  return true;
}
