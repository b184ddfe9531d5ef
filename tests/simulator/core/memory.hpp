// Global memory is the CPU's own; shared memory is a block's, and watched.
#pragma once

#include "arithmetic.hpp"

// ---- global

inline bool owned(const Machine& m, uint64_t address, uint64_t bytes) {
  auto after = std::upper_bound(m.regions.begin(), m.regions.end(), address,
                                [](uint64_t a, const Region& region) { return a < region.begin; });
  if (after == m.regions.begin()) return false;
  uint64_t end = std::prev(after)->end;
  return address <= end && bytes <= end - address;
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
  uint64_t size = m.shared.size();
  if (bytes > size || address > size - bytes) return m.fail("an access outside of shared memory");
  if (address % alignment) return m.fail("a misaligned access to shared memory");
  return true;
}

// The places of Track that some bytes lie in. No access is smaller than a place.
struct Places {
  uint32_t first, last;
  Places(const Machine& m, uint32_t address, uint32_t bytes)
      : first(address >> m.grain), last((address + bytes) >> m.grain) {}
};

// Another warp's store since the last barrier, or a tile of TMA that is not there for this warp:
// it is for a warp that saw its barrier end, and for all behind the next bar.sync.
inline bool of_another(const Machine& m, const Track& t) {
  if (t.writer != TMA) return t.written == m.epoch && t.writer && t.writer != m.warp + 1;
  const Landing& landing = m.landings[t.landing];
  return !landing.epoch || (landing.epoch == m.epoch && !(landing.warps & m.bit()));
}

// asynchronous: by a product or by TMA, which see plain stores only behind a proxy fence: of the warp
// that stored, or of this one in a later epoch.
inline bool note_read(Machine& m, uint32_t address, uint32_t bytes, bool asynchronous = false) {
  Places places(m, address, bytes);
  for (uint32_t place = places.first; place < places.last; ++place) {
    Track& t = m.track[place];
    if (of_another(m, t)) {
      return m.fail(t.writer == TMA
                        ? "a race: this warp has not waited for what TMA wrote here"
                        : "a race: another warp wrote this to shared memory since the last barrier");
    }
    if (asynchronous && t.unfenced && t.written >= m.self().fenced) {
      return m.fail("no proxy fence between a store to shared memory and a product or TMA");
    }
    if (t.read != m.epoch) t.read = m.epoch, t.readers = 0;
    t.readers |= m.bit();
  }
  return true;
}

// Whether nothing stands against a change of this place, but for who wrote it.
inline bool may_change(Machine& m, const Track& t) {
  if (t.in_flight) return m.fail("a race: an asynchronous product may still read this");
  if (t.barrier) return m.fail("a barrier lies here: it has to be invalidated first");
  if (t.read == m.epoch && t.readers & ~m.bit()) {
    return m.fail("a race: another warp read this since the last barrier");
  }
  return true;
}
// Behind a barrier of the block, a fence after this store holds for those before it also.
inline void set_unfenced(Machine& m, Track& t, uint32_t place) {
  if (t.written != m.epoch) t.unfenced = 0;
  if (!(t.unfenced & m.bit())) m.self().unfenced.push_back(place);
  t.unfenced |= m.bit();
}

// Several warps may write the same bytes: Triton lets all threads write what all of them hold.
// plain: by a store, not by a copy. bytes: what is stored, if that is known.
inline bool note_write(Machine& m, uint32_t address, const uint8_t* bytes, uint32_t count,
                       bool plain) {
  Places places(m, address, count);
  uint32_t width = 1u << m.grain;
  for (uint32_t place = places.first; place < places.last; ++place) {
    Track& t = m.track[place];
    if (of_another(m, t)) {
      const uint8_t* same = bytes ? bytes + (width * place - address) : nullptr;
      bool stored = t.writer <= kLanes;
      if (!stored || !same || std::memcmp(same, &m.shared[width * place], width)) {
        return m.fail("a race: another warp wrote here since the last barrier");
      }
      if (!may_change(m, t)) return false;
      set_unfenced(m, t, place);
      continue;
    }
    if (!may_change(m, t)) return false;
    if (plain) set_unfenced(m, t, place);
    else t.unfenced = 0;
    t.written = m.epoch, t.writer = uint8_t(m.warp + 1);
  }
  return true;
}

// Atomics of several warps may meet, for their order does not matter; a plain access among them may
// not. A warp that has stored here itself stays the writer.
inline bool note_atomic(Machine& m, uint32_t address, uint32_t bytes) {
  Places places(m, address, bytes);
  for (uint32_t place = places.first; place < places.last; ++place) {
    Track& t = m.track[place];
    if (of_another(m, t) && t.writer != ATOMIC) {
      return m.fail("a race: another warp wrote here since the last barrier");
    }
    if (!may_change(m, t)) return false;
    set_unfenced(m, t, place);
    if (t.written != m.epoch || t.writer != m.warp + 1) t.written = m.epoch, t.writer = ATOMIC;
  }
  return true;
}

inline bool store_shared(Machine& m, uint64_t address, const uint8_t* bytes, int count) {
  if (!within(m, address, count, count)) return false;
  if (!note_write(m, address, bytes, count, true)) return false;
  std::memcpy(&m.shared[address], bytes, count);
  return true;
}

// A product or TMA sees what this warp stored before.
inline void fence_proxy(Machine& m) {
  for (uint32_t place : m.self().unfenced) m.track[place].unfenced &= ~m.bit();
  m.self().unfenced.clear();
  m.self().fenced = m.epoch;
}
