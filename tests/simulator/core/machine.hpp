// The state of a block of threads, and its registers.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "program.hpp"

struct Copy {  // lands when it is waited for
  uint32_t to;
  std::vector<uint8_t> bytes;
};

using Chunks = std::vector<uint32_t>;  // of 16 bytes of shared memory
struct Product {  // a wgmma that nobody has waited for
  Chunks chunks;                    // which it reads
  std::vector<int32_t> sums, left;  // places of registers, which it writes and reads
};

struct Barrier {  // an mbarrier
  int expected, pending;
  int64_t bytes;
  int phase;
  std::vector<Copy> copies;  // they land when somebody waits for them
  uint32_t landing, last;    // of this phase and the one before, among Machine::landings
};

struct Landing {  // of the tiles of one phase of a barrier
  uint32_t epoch;  // in which a warp first saw that phase end; 0: not yet
  uint32_t warps;  // that saw it, a bit each
};

struct Warp {
  enum State { RUNS, AT_BARRIER, SPINS, ENDED };
  std::array<uint32_t, kLanes> next{};  // each thread's next instruction
  uint32_t alive = ~0u;
  State state = RUNS;
  bool waits_in_vain = false;                  // since its last branch
  std::vector<Copy> copies;                    // not committed yet
  std::vector<std::vector<Copy>> copy_groups;  // oldest first
  std::vector<Product> products;               // likewise
  std::vector<std::vector<Product>> product_groups;
  // By register, kept where a program has asynchronous products: how many that are under way
  // write it, how many read it, and after which fence for products it was last touched.
  std::vector<uint16_t> summed, read_as_left;
  std::vector<uint32_t> touched;
  uint32_t product_fences = 0;
  std::vector<uint32_t> unfenced;  // places of Track that this warp wrote since its last fence
  uint32_t fenced = 0;             // in which epoch that was
};

// Writers of shared memory that are no single warp: warps are counted from 1.
enum Writer : uint8_t { NOBODY = 0, ATOMIC = 33, TMA = 34 };

// Who touched a place of shared memory: two bytes, or one where a program stores single ones.
// Epochs are counted at the barriers of the whole block.
struct Track {
  uint32_t written, read;  // epochs
  uint32_t readers;        // warps, a bit each, in the epoch `read`
  uint32_t unfenced;       // warps whose stores no proxy fence has followed, a bit each
  uint32_t landing;        // of the tile that TMA writes here
  uint16_t in_flight;      // asynchronous products that may still read it
  uint8_t writer;          // in the epoch `written`: warp + 1, or a Writer
  bool barrier;            // an mbarrier lies here
};

struct Machine {
  const Instruction* code;
  const Operand* operands;
  const uint8_t* parameters;
  int length, register_bytes, warp_count;
  bool has_products;  // asynchronous ones
  int grain;          // a place of Track has 1 << grain bytes
  std::array<uint32_t, 3> grid, block;
  std::vector<Region> regions;  // what tensors own, in order
  std::vector<uint8_t> shared, registers;
  std::vector<Track> track;
  std::vector<Warp> warps;
  std::map<uint32_t, Barrier> barriers;  // by address
  std::vector<Landing> landings;
  uint32_t epoch = 1;
  uint64_t branches = 0;   // of this block, so far
  bool moved = false;      // a barrier in memory has changed, or a wait has ended
  int warp = 0, at = 0;    // what runs now
  std::string error;

  uint8_t* file() { return &registers[size_t(warp) * register_bytes * kLanes]; }
  Warp& self() { return warps[warp]; }
  uint32_t bit() const { return 1u << warp; }
  // The first error is the one that counts.
  bool fail(const std::string& what) {
    if (error.empty()) {
      error = "block " + std::to_string(block[0]) + "," + std::to_string(block[1]) + "," +
              std::to_string(block[2]) + ", warp " + std::to_string(warp) + ", line " +
              std::to_string(code[at].line) + " of the PTX: " + what;
    }
    return false;
  }
};

#define FOR_LANES for (int lane = 0; lane < kLanes; ++lane)
#define FOR_ACTIVE(mask) FOR_LANES if ((mask) >> lane & 1)

// What a product under way writes holds nothing yet, and what it reads is not to change.
inline void note_register(Machine& m, int64_t place, bool writes) {
  Warp& self = m.self();
  if (self.summed[place]) {
    m.fail(writes ? "a sum is written before its product was waited for"
                  : "a sum is read before its product was waited for");
  }
  if (writes && self.read_as_left[place]) {
    m.fail("a left operand is written before its product was waited for");
  }
  self.touched[place] = self.product_fences;
}

inline void read(Machine& m, const Operand& from, Lanes& to) {
  if (from.kind == Operand::REGISTER) {
    if (m.has_products) note_register(m, from.value, false);
    const uint8_t* p = m.file() + from.value * kLanes;
    switch (from.size) {
      case 1: FOR_LANES to[lane] = p[lane]; return;
      case 2: FOR_LANES to[lane] = reinterpret_cast<const uint16_t*>(p)[lane]; return;
      case 4: FOR_LANES to[lane] = reinterpret_cast<const uint32_t*>(p)[lane]; return;
      default: FOR_LANES to[lane] = reinterpret_cast<const uint64_t*>(p)[lane]; return;
    }
  }
  if (from.kind == Operand::NUMBER) {
    to.fill(from.value);
  } else if (from.value == 0) {  // %tid.x
    FOR_LANES to[lane] = m.warp * kLanes + lane;
  } else if (from.value <= 3) {  // %ctaid
    to.fill(m.block[from.value - 1]);
  } else {  // %nctaid
    to.fill(m.grid[from.value - 4]);
  }
}

inline void write(Machine& m, const Operand& to, const Lanes& from, uint32_t mask) {
  if (to.kind != Operand::REGISTER) return;
  if (m.has_products) note_register(m, to.value, true);
  uint8_t* p = m.file() + to.value * kLanes;
  switch (to.size) {
    case 1: FOR_ACTIVE(mask) p[lane] = from[lane] & 1; return;
    case 2: FOR_ACTIVE(mask) reinterpret_cast<uint16_t*>(p)[lane] = from[lane]; return;
    case 4: FOR_ACTIVE(mask) reinterpret_cast<uint32_t*>(p)[lane] = from[lane]; return;
    default: FOR_ACTIVE(mask) reinterpret_cast<uint64_t*>(p)[lane] = from[lane];
  }
}
